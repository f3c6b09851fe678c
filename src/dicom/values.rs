//! Values of elements, read leniently where the meaning is clear and not at all where it is not.

use dicom_encoding::text::{SpecificCharacterSet, TextCodec as _};

/// A text value without the padding around it.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace())
}

/// Bytes of the default repertoire (CS, UI, DA, ...): anything outside ASCII is kept apart by its code, never an error.
pub(super) fn plain(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => trimmed(text).to_owned(),
        Err(_) => trimmed(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>()).to_owned(),
    }
}

/// The values of a multi-valued code string, upper case.
pub(super) fn codes(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split('\\')
        .map(|value| trimmed(value).to_ascii_uppercase())
        .collect()
}

/// An integer string. "1.0", "+3" and padding are read; words are not.
pub(super) fn integer(text: &str) -> Option<i64> {
    let first = trimmed(text.split('\\').next()?);
    first.parse().ok().or_else(|| {
        let value = decimal(first)?;
        (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64)
    })
}

/// A decimal string, such as "006.972656e-01"; a comma stands for a point. Infinities and NaN are no values.
pub(super) fn decimal(text: &str) -> Option<f64> {
    let text = trimmed(text);
    let value = text
        .parse::<f64>()
        .ok()
        .or_else(|| text.replace(',', ".").parse().ok())?;
    value.is_finite().then_some(value)
}

/// Exactly `N` decimal strings, parted by backslashes, or else by commas.
pub(super) fn decimals<const N: usize>(text: &str) -> Option<[f64; N]> {
    split::<N>(text, '\\').or_else(|| split::<N>(text, ','))
}

fn split<const N: usize>(text: &str, separator: char) -> Option<[f64; N]> {
    let mut values = [0.0; N];
    let mut parts = text.split(separator);
    for value in &mut values {
        *value = decimal(parts.next()?)?;
    }
    parts.next().is_none().then_some(values)
}

/// Decodes text by SpecificCharacterSet (PS3.5 section 6.1). Of several sets the last decides, since dicom-rs has no code extensions; the escape sequences
/// of the Korean set, which need no other codec, are taken out.
pub(super) struct Charset(SpecificCharacterSet);

impl Charset {
    pub(super) fn new(specific_character_set: &str) -> Self {
        let named = specific_character_set
            .split('\\')
            .map(trimmed)
            .rfind(|name| !name.is_empty());
        Self(
            named
                .and_then(SpecificCharacterSet::from_code)
                .unwrap_or(SpecificCharacterSet::ISO_IR_6),
        )
    }

    pub(super) fn text(&self, bytes: &[u8]) -> String {
        const ESCAPE: u8 = 0x1b;
        if bytes.is_ascii() && !bytes.contains(&ESCAPE) {
            return plain(bytes);
        }
        let korean = self.0.name() == "ISO_IR 149";
        let without = if korean {
            without_korean_escapes(bytes)
        } else {
            bytes.to_vec()
        };
        match self.0.decode(&without) {
            Ok(text) => trimmed(&text).to_owned(),
            Err(_) => plain(bytes),
        }
    }
}

fn without_korean_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut kept = Vec::with_capacity(bytes.len());
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\x1b$)C").or_else(|| rest.strip_prefix(b"\x1b(B")) {
            rest = tail;
        } else {
            kept.push(*first);
            rest = tail;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_decimal_strings_are_read_where_their_meaning_is_clear() {
        assert_eq!(decimal("006.972656e-01"), Some(0.6972656));
        assert_eq!(decimal(" -1024\0"), Some(-1024.0));
        assert_eq!(decimal("0,703125"), Some(0.703125));
        assert_eq!(decimal("0.70312500000000000000001"), Some(0.703125));
        for none in ["", "abc", "nan", "inf", "1e999", "--1", "1 2"] {
            assert_eq!(decimal(none), None, "{none}");
        }
    }

    #[test]
    fn lists_are_parted_by_backslashes_or_else_by_commas() {
        assert_eq!(decimals::<2>("0.7\\0.8 "), Some([0.7, 0.8]));
        assert_eq!(decimals::<2>("0.7,0.8"), Some([0.7, 0.8]));
        assert_eq!(decimals::<2>("0,7\\0,8"), Some([0.7, 0.8]));
        assert_eq!(decimals::<3>("1\\2"), None);
        assert_eq!(decimals::<2>("1\\2\\3"), None);
    }

    #[test]
    fn integers_carry_their_padding_and_a_needless_point() {
        assert_eq!(integer(" +7 "), Some(7));
        assert_eq!(integer("3.000000"), Some(3));
        assert_eq!(integer("12\\13"), Some(12));
        assert_eq!(integer("12a"), None);
        assert_eq!(integer(""), None);
    }

    #[test]
    fn text_is_decoded_by_its_character_set() {
        assert_eq!(Charset::new("ISO_IR 100").text(b"Buc^J\xe9r\xf4me "), "Buc^Jérôme");
        assert_eq!(Charset::new("ISO_IR 192").text("Wang^小东".as_bytes()), "Wang^小东");
        assert_eq!(Charset::new("GB18030").text(b"Wang^\xd0\xa1\xb6\xab"), "Wang^小东");
        assert_eq!(
            Charset::new("\\ISO 2022 IR 149").text(b"\x1b$)C\xb1\xe8^\x1b$)C\xc8\xf1\xc1\xdf"),
            "김^희중"
        );
        assert_eq!(
            Charset::new("\\ISO 2022 IR 87").text(b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
            "山田^太郎"
        );
        assert_eq!(Charset::new("nonsense").text(b"\xe9"), "é");
    }
}
