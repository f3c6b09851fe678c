//! What a person sees of the progress: a bar on a terminal, plain lines where there is none.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::{TINY, ends_with, phantom, segmenting, text};

/// `...012345678901: window 3 of 40, about 12 s left`, as windows done, of all, and seconds left.
fn window(line: &str) -> Option<(usize, usize, f64)> {
    let (_, rest) = line.split_once(": window ")?;
    let (done, rest) = rest.split_once(" of ")?;
    let (total, rest) = rest.split_once(", about ")?;
    let seconds = rest.strip_suffix(" s left")?;
    Some((done.parse().ok()?, total.parse().ok()?, seconds.parse().ok()?))
}

#[test]
fn without_a_terminal_plain_lines_tell_the_stage_the_windows_done_and_the_time_left() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let out = folder.path().join("out");
    // Many windows: a line comes every five seconds.
    let many = ["--overlap", "0.9", "--crop", "off", "--skip", "off"];
    let mut child = segmenting(&[&series], &out, &many)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    let mut windows = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        windows.extend(window(&line));
        lines.push(line);
        if windows.len() == 2 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let [(first, total, _), (second, of, left)] = windows[..] else {
        panic!("fewer than two lines tell of windows: {lines:#?}");
    };
    assert!(
        0 < first && first < second && second < total && total == of,
        "{windows:?}"
    );
    assert!(left > 0.0, "{windows:?}");
    // The end of the series' UID stands before each, for several series go one after the other.
    let stages = ["reading slices", "resampling", "finding the body", "segmenting"];
    let told = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(_, what)| what);
    let told: Vec<&str> = told.filter(|what| stages.contains(what)).collect();
    assert_eq!(told, stages, "{lines:#?}");
    assert!(
        lines
            .iter()
            .all(|line| !line.contains('\r') && !line.contains('\u{1b}')),
        "a bar is for terminals: {lines:#?}"
    );
}

/// `...012345678901  segmenting  [███░░░] 3/40  12s left` of a frame of the bar, as windows done, of all, and the time left, which is empty where none is told.
fn bar(frame: &str) -> Option<(usize, usize, &str)> {
    let (_, rest) = frame.split_once("segmenting  [")?;
    let (_, rest) = rest.split_once("] ")?;
    let (windows, left) = rest.split_once("  ").unwrap_or((rest, ""));
    let (done, total) = windows.trim().split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?, left.trim()))
}

#[test]
fn on_a_terminal_a_bar_tells_the_windows_done_and_the_time_left_and_goes_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let out = folder.path().join("out");
    let program = segmenting(&[&series], &out, &["--model", TINY, "--crop", "off", "--skip", "off"]);
    let quoted = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()));
    let line = quoted.collect::<Vec<_>>().join(" ");
    // `script` runs it on a terminal of its own, and ends as it ends.
    let output = Command::new("script")
        .args(["-qefc", &format!("stty columns 120 rows 40; {line}"), "/dev/null"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    ends_with(&output, 0);
    let told = text(&output.stdout);
    let frames: Vec<_> = told.split(['\r', '\n', '\u{1b}']).filter_map(bar).collect();
    assert!(
        frames.iter().any(|(done, total, _)| 0 < *done && done < total),
        "no window between the first and the last: {told:?}"
    );
    assert!(
        frames
            .windows(2)
            .all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 == pair[1].1),
        "{frames:?}"
    );
    for (done, _, left) in &frames {
        let told = left.strip_suffix("s left").or_else(|| left.strip_suffix("m left"));
        let is_number = told.is_some_and(|number| number.parse::<u32>().is_ok());
        assert!(
            if *done == 0 { left.is_empty() } else { is_number },
            "nothing is known before the first window, and a time after it: {frames:?}"
        );
    }
    let after = told.rsplit("segmenting  [").next().unwrap();
    assert!(after.contains("\u{1b}[2K") && !told.contains(": window "), "{told:?}");
}
