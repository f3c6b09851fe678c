//! Small pieces of the sentences that findings are told in.

/// "1 slice", "3 slices".
pub(super) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// "all 67 slices", "1 of 67 slices".
pub(super) fn share(n: usize, of: usize) -> String {
    match (n, of) {
        (1, 1) => "the only slice".to_owned(),
        _ if n == of => format!("all {of} slices"),
        _ => format!("{n} of {of} slices"),
    }
}

pub(super) fn has(n: usize) -> &'static str {
    if n == 1 { "has" } else { "have" }
}

/// With its first letter in upper case.
pub(super) fn sentence_case(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

pub(super) fn was(n: usize) -> &'static str {
    if n == 1 { "was" } else { "were" }
}

pub(super) fn are(n: usize) -> &'static str {
    if n == 1 { "is" } else { "are" }
}

/// "10:11:12.5" of the DICOM time "101112.5"; anything else as it stands.
pub(super) fn clock(time: &str) -> String {
    match (time.get(..2), time.get(2..4), time.get(4..)) {
        (Some(hours), Some(minutes), Some(seconds))
            if time.starts_with(|c: char| c.is_ascii_digit()) && !seconds.is_empty() =>
        {
            format!("{hours}:{minutes}:{seconds}")
        }
        _ => time.to_owned(),
    }
}

/// "1.5 GB", "230 MB".
pub(super) fn bytes(n: u64) -> String {
    let mb = n as f64 / 1e6;
    if mb >= 1000.0 {
        format!("{:.1} GB", mb / 1000.0)
    } else {
        format!("{mb:.0} MB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_many_are_told_apart() {
        assert_eq!(count(1, "slice"), "1 slice");
        assert_eq!(count(0, "slice"), "0 slices");
        assert_eq!(share(1, 1), "the only slice");
        assert_eq!(share(3, 3), "all 3 slices");
        assert_eq!(sentence_case(&share(1, 3)), "1 of 3 slices");
        assert_eq!(sentence_case("all"), "All");
        assert_eq!(clock("101112.5"), "10:11:12.5");
        assert_eq!(clock("10"), "10");
        assert_eq!(bytes(1_500_000_000), "1.5 GB");
    }
}
