//! Bodies that end too early or never, of too many parts or too many bytes.

use super::*;

#[tokio::test]
async fn bodies_without_their_closing_boundary_are_400_and_leave_nothing() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let whole = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.9", 0), vec![7; 500_000]]);
        for length in [whole.len() - 2, whole.len() - 40, whole.len() / 2, 900, 60, 1, 0] {
            let answer = target.upload(&whole[..length]).await;
            assert_eq!(status(&answer), 400, "{length}: {answer}");
        }
        // The same in chunks, which end well, end in nonsense, or do not end.
        let part = &whole[..2000];
        for (end, wanted) in [
            ("0\r\n\r\n", Some(400)),
            ("FFFFFFFFFFFFFFFFF\r\n", None),
            ("zz\r\n", None),
        ] {
            let head = target.head("Transfer-Encoding: chunked\r\nConnection: close\r\n");
            let bytes = [head.as_bytes(), b"7D0\r\n", part, b"\r\n", end.as_bytes()].concat();
            let answer = target.answer(&bytes).await;
            if wanted.is_some() || !answer.is_empty() {
                assert_eq!(status(&answer), 400, "{end:?}: {answer}");
            }
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_hundred_thousand_tiny_parts_are_answered_one_by_one_in_little_memory() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let tiny = |parts: usize| {
            let boundary = content_type().split_once("boundary=").unwrap().1.to_owned();
            let part = format!("--{boundary}\r\n\r\nx\r\n");
            format!("{}--{boundary}--", part.repeat(parts)).into_bytes()
        };
        let answer = target.upload(&tiny(100_000)).await;
        assert_eq!(status(&answer), 409);
        assert_eq!(answer.matches("00081197").count(), 100_000);
        let answer = target.upload(&tiny(100_001)).await;
        assert_eq!(status(&answer), 413, "{answer}");
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn ten_million_tiny_parts_are_refused_in_little_memory() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let boundary = content_type().split_once("boundary=").unwrap().1.to_owned();
        let (piece, pieces) = (format!("--{boundary}\r\n\r\nx\r\n").repeat(10_000), 1000);
        let end = format!("--{boundary}--");
        let length = piece.len() * pieces + end.len();
        for length in [
            format!("Content-Length: {length}"),
            "Transfer-Encoding: chunked".to_owned(),
        ] {
            let head = target.head(&format!("{length}\r\nConnection: close\r\n"));
            let chunked = length.ends_with("chunked");
            let framed = |bytes: &str| {
                if chunked {
                    format!("{:X}\r\n{bytes}\r\n", bytes.len())
                } else {
                    bytes.to_owned()
                }
            };
            let (piece, end) = (framed(&piece), framed(&end) + if chunked { "0\r\n\r\n" } else { "" });
            let body = std::iter::repeat_n(piece.as_bytes(), pieces).chain([end.as_bytes()]);
            let begun = Instant::now();
            let answer = target.answer_to([head.as_bytes()].into_iter().chain(body)).await;
            assert_eq!(status(&answer), 413, "{length}: {answer}");
            assert!(answer.contains("too_large"), "{answer}");
            println!("{length}: refused after {:?}", begun.elapsed());
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn heads_of_parts_are_bounded() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let boundary = content_type().split_once("boundary=").unwrap().1.to_owned();
        let endless = format!("--{boundary}\r\nX-Long: {}", "a".repeat(8 << 20));
        let answer = target.upload(endless.as_bytes()).await;
        assert_eq!(status(&answer), 413, "{answer}");
        let lines = format!("--{boundary}\r\n{}", "X: y\r\n".repeat(1 << 20));
        let answer = target.upload(lines.as_bytes()).await;
        assert_eq!(status(&answer), 413, "{answer}");
        // Many that are just short enough: 60 MB in all.
        let part = format!("--{boundary}\r\nX-Long: {}\r\n\r\nx\r\n", "a".repeat(15_000));
        let body = format!("{}--{boundary}--", part.repeat(4000));
        let answer = target.upload(body.as_bytes()).await;
        assert_eq!(status(&answer), 409);
        // A part's own word on its length is not believed.
        let lying = format!("--{boundary}\r\nContent-Length: 4294967295\r\n\r\nx\r\n--{boundary}--");
        assert_eq!(status(&target.upload(lying.as_bytes()).await), 409);
        target.ends_unharmed(1).await;
    })
    .await;
}

/// Bytes of the bodies of the test below.
const LARGE_BODY: usize = 5 << 30;
/// What the service may hold at the most while it takes them.
const MOST_HELD_KIB: u64 = 100_000;

#[tokio::test]
async fn bodies_of_gigabytes_are_taken_or_refused_in_little_memory() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let limit = (32usize << 20).to_string();
        let target = Target::up(&url, &[("HILUM_INBOX__MAX_INSTANCE_BYTES", &limit)]).await;
        let boundary = content_type().split_once("boundary=").unwrap().1.to_owned();
        let before = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
        // An instance of a megabyte: what follows the pixels is padding (PS3.10 section 7.2).
        let mut part = ct("1.2.3", "1.2.3.5", "1.2.4.7", 0);
        part.extend(element((0xFFFC, 0xFFFC), "OB", &vec![7; 1 << 20]));
        let (part, end) = (
            [&before, &part, &b"\r\n"[..]].concat(),
            format!("--{boundary}--").into_bytes(),
        );
        let parts = LARGE_BODY / part.len();
        let begun = Instant::now();
        for (name, head_of_part, piece, pieces, wanted) in [
            ("many parts", &b""[..], &part, parts, 200),
            ("one part", &before, &vec![7; 1 << 20], LARGE_BODY >> 20, 413),
        ] {
            let length = head_of_part.len() + pieces * piece.len() + end.len();
            let head = target.head(&format!("Content-Length: {length}\r\nConnection: close\r\n"));
            let body = std::iter::repeat_n(piece.as_slice(), pieces);
            let all = [head.as_bytes(), head_of_part]
                .into_iter()
                .chain(body)
                .chain([end.as_slice()]);
            let answer = target.answer_to(all).await;
            assert_eq!(status(&answer), wanted, "{name}");
            if wanted == 200 {
                assert_eq!(answer.matches("1.2.4.7").count(), parts, "every part is referenced");
            }
            let held = target.service.memory_kib("VmHWM");
            println!(
                "{name}: {length} bytes, {held} KiB held at the most, {:?} in all",
                begun.elapsed()
            );
            assert!(held < MOST_HELD_KIB, "{held} KiB");
        }
        target.ends_unharmed(2).await;
    })
    .await;
}
