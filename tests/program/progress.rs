//! What a person sees of the progress where there is no terminal: plain lines.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::{phantom, segmenting};

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
    let many = ["-v", "--overlap", "0.9", "--crop", "off", "--skip", "off"];
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
