//! Parts that are no instances, or lie about what they hold.

use super::*;

#[tokio::test]
async fn deep_sequences_and_lengths_of_4_gb_are_no_instances() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let level = [header((0x12, 0x64), "SQ", u32::MAX), item(0xE000, u32::MAX)].concat();
        let data = data_set(20, 30, true);
        let mut parts = headers_that_lie();
        parts.push([meta(EXPLICIT), level.repeat(100_000)].concat());
        parts.push([meta(EXPLICIT), level.repeat(100_000), data.clone()].concat());
        for (number, part) in parts.iter().enumerate() {
            let answer = target.upload(&multipart(&[part])).await;
            assert_eq!(status(&answer), 409, "{number}: {answer}");
        }
        let answer = target.upload(&multipart(&parts)).await;
        assert_eq!(answer.matches("00081197").count(), parts.len(), "{answer}");
        // What only its pixels belie may be taken: the job that reads them refuses it.
        let pixels = [
            [meta(EXPLICIT), data.clone(), header((0x7FE0, 0x10), "OW", HUGE)].concat(),
            [
                meta(RLE),
                data.clone(),
                header((0x7FE0, 0x10), "OB", u32::MAX),
                item(0xE000, HUGE),
            ]
            .concat(),
            [meta(RLE), data, encapsulated(&[&[0xFF; 64]])].concat(),
        ];
        for (number, part) in pixels.iter().enumerate() {
            let answer = target.upload(&multipart(&[part])).await;
            assert!([200, 409].contains(&status(&answer)), "{number}: {answer}");
        }
        assert_eq!(status(&target.upload(&multipart(&[native(20, 30)])).await), 200);
        let files = target.service.inbox_files().len() + 1;
        target.ends_unharmed(files).await;
    })
    .await;
}

#[tokio::test]
async fn a_broken_deflated_part_fails_alone_and_those_beside_it_are_taken() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let mut encoder = DeflateEncoder::new(meta(DEFLATED), Compression::fast());
        encoder.write_all(&data_set(20, 30, true)).unwrap();
        let mut broken = encoder.finish().unwrap();
        // A block of a kind that there is not (RFC 1951 section 3.2.3).
        let at = meta(DEFLATED).len();
        broken[at..].fill(0xFF);
        let [before, after] = ["1.2.4.21", "1.2.4.22"].map(|uid| ct("1.2.3", "1.2.3.6", uid, 0));
        let answer = target.upload(&multipart(&[before, broken, after])).await;
        assert_eq!(status(&answer), 202, "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("application/dicom+json"), "{head}");
        let told: Value = serde_json::from_str(body).unwrap();
        let stored = told["00081199"]["Value"].as_array().unwrap();
        let stored: Vec<_> = stored
            .iter()
            .map(|one| one["00081155"]["Value"][0].as_str().unwrap())
            .collect();
        assert_eq!(stored, ["1.2.4.21", "1.2.4.22"]);
        assert_eq!(
            told["00081198"]["Value"].as_array().map_or(0, Vec::len)
                + told["0008119A"]["Value"].as_array().map_or(0, Vec::len),
            1,
            "{told}"
        );
        target.ends_unharmed(2).await;
    })
    .await;
}

/// A good slice in which an element of two bytes is another one.
fn slice_with(tag: (u16, u16), by: &[u8]) -> Vec<u8> {
    let bytes = native(20, 30);
    let start = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    let at = memchr::memmem::find(&bytes, &start).unwrap();
    [&bytes[..at], by, &bytes[at + 10..]].concat()
}

#[tokio::test]
async fn sizes_without_bounds_are_no_instances() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let (rows, columns) = ((0x28, 0x10), (0x28, 0x11));
        let many_rows = element(rows, "UL", &(1u32 << 31).to_le_bytes());
        let many_columns = element(columns, "UL", &u32::MAX.to_le_bytes());
        let frames = element((0x28, 8), "IS", b"2147483647");
        let (largest, small) = (data_set(u16::MAX, u16::MAX, true), data_set(20, 30, true));
        let pixels = header((0x7FE0, 0x10), "OW", HUGE);
        for (name, part) in [
            ("2^31 rows", slice_with(rows, &many_rows)),
            ("2^32 - 1 columns", slice_with(columns, &many_columns)),
            (
                "65535 rows and columns",
                [meta(EXPLICIT), largest, pixels.clone()].concat(),
            ),
            ("2^31 - 1 frames", [meta(EXPLICIT), frames, small, pixels].concat()),
        ] {
            let answer = target.upload(&multipart(&[part])).await;
            assert_eq!(status(&answer), 409, "{name}: {answer}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

/// An overlay plane (PS3.3 C.9.2) of 65535 by 65535 points in 2^31 - 1 frames, of which its data have two bytes.
fn overlay_beyond_its_data() -> Vec<u8> {
    let short = |number, value: u16| element((0x6000, number), "US", &value.to_le_bytes());
    [
        short(0x10, u16::MAX),
        short(0x11, u16::MAX),
        element((0x6000, 0x15), "IS", b"2147483647"),
        element((0x6000, 0x40), "CS", b"G"),
        element((0x6000, 0x50), "SS", &[0xFF; 4]),
        short(0x100, 1),
        // A bit that no pixel has.
        short(0x102, u16::MAX),
        element((0x6000, 0x3000), "OW", &[0xFF; 2]),
    ]
    .concat()
}

/// A slice with elements before its pixels.
fn before_pixels(slice: &[u8], elements: &[u8]) -> Vec<u8> {
    let at = memchr::memmem::find(slice, b"\xE0\x7F\x10\0OW").unwrap();
    [&slice[..at], elements, &slice[at..]].concat()
}

/// A slice whose values are places in a table of colours (PS3.3 C.7.6.3.1.5) of 65535 entries for values from 65535 on, of which its data have one.
fn in_colours(slice: &[u8]) -> Vec<u8> {
    let interpretation = |text: &[u8]| element((0x28, 4), "CS", text);
    let grey = interpretation(b"MONOCHROME2");
    let at = memchr::memmem::find(slice, &grey).unwrap();
    let (before, after) = (&slice[..at], &slice[at + grey.len()..]);
    let coloured = [before, &interpretation(b"PALETTE COLOR"), after].concat();
    let descriptor: Vec<u8> = [u16::MAX, u16::MAX, 16]
        .into_iter()
        .flat_map(u16::to_le_bytes)
        .collect();
    let descriptors = [0x1101, 0x1102, 0x1103].map(|number| element((0x28, number), "US", &descriptor));
    let data = [0x1201, 0x1202, 0x1203].map(|number| element((0x28, number), "OW", &[0xFF; 2]));
    before_pixels(&coloured, &[descriptors.concat(), data.concat()].concat())
}

#[tokio::test]
async fn overlays_and_palettes_beyond_their_data_harm_nobody_at_the_door() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let slice = native(20, 30);
        let beyond_the_file = header((0x6000, 0x3000), "OW", HUGE);
        for (name, part, wanted) in [
            ("an overlay", before_pixels(&slice, &overlay_beyond_its_data()), 200),
            ("a palette", in_colours(&slice), 200),
            (
                "an overlay longer than the file",
                before_pixels(&slice, &beyond_the_file),
                409,
            ),
        ] {
            let answer = target.upload(&multipart(&[part])).await;
            assert_eq!(status(&answer), wanted, "{name}: {answer}");
        }
        let files = target.service.inbox_files().len() + 1;
        target.ends_unharmed(files).await;
    })
    .await;
}

#[tokio::test]
async fn a_job_reads_no_overlay_and_refuses_a_palette() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let folder = tempfile::tempdir().unwrap();
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        service.up().await;
        let overlay: fn(&[u8]) -> Vec<u8> = |slice| before_pixels(slice, &overlay_beyond_its_data());
        for (number, changed, state, code) in [
            (1, overlay, "done", Value::Null),
            (2, in_colours, "refused", "not_hu".into()),
        ] {
            let slices = thin_phantom(&folder.path().join(number.to_string()), 60 + number);
            for slice in &slices {
                std::fs::write(slice, changed(&std::fs::read(slice).unwrap())).unwrap();
            }
            let answer = service.stow(&slices, &WHOLE[..1]).await;
            assert_eq!(answer.unwrap().status(), 200);
            let job = &service.jobs_over(number as usize).await[0];
            assert_eq!(
                (&job["state"], &job["error"]["code"]),
                (&Value::from(state), &code),
                "{job}"
            );
        }
        service.has_not_panicked();
        assert!(service.end());
    })
    .await;
}

#[tokio::test]
async fn bombs_and_uids_like_paths_are_no_instances() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let bomb = |inflated: &[&[u8]]| {
            let mut encoder = DeflateEncoder::new(meta(DEFLATED), Compression::best());
            inflated.iter().for_each(|piece| encoder.write_all(piece).unwrap());
            encoder.finish().unwrap()
        };
        let zeros = vec![0; 1 << 20];
        let (long, many) = (header((9, 0x1010), "OB", 256 << 20), element((9, 0x1010), "SH", b""));
        let pieces: Vec<&[u8]> = [&long[..]].into_iter().chain([&zeros[..]; 256]).collect();
        let uid = "1.2.3";
        let many = many.repeat(1 << 17);
        for part in [
            bomb(&pieces),
            bomb(&[&many[..]; 128]),
            ct("../../../../tmp/x", uid, uid, 0),
            ct(uid, "/etc/passwd", uid, 0),
            ct(uid, uid, "..", 0),
            ct(uid, uid, "1.2/../../3", 0),
        ] {
            assert!(part.len() < 4 << 20, "{}", part.len());
            let answer = target.upload(&multipart(&[part])).await;
            assert_eq!(status(&answer), 409, "{answer}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}
