//! Values in, text that a DICOM value representation allows out (PS3.5 table 6.2-1).
//!
//! Our own text is plain ASCII, because the object carries the source's SpecificCharacterSet, which may be any, or wrong.

/// Printable ASCII of at most `limit` characters, without the backslash that separates values.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let replaced = text.trim().chars().map(|c| match c {
        '\\' => '/',
        ' '..='~' => c,
        _ => '?',
    });
    replaced.take(limit).collect::<String>().trim_end().to_owned()
}

/// Like `plain`, value by value.
pub(super) fn plain_values(text: &str, limit: usize) -> String {
    text.split('\\')
        .map(|value| plain(value, limit))
        .collect::<Vec<_>>()
        .join("\\")
}

/// A decimal string of at most 16 characters: the shortest that reads back as the same number, otherwise the closest that fits.
pub(super) fn decimal(value: f64) -> String {
    const LIMIT: usize = 16;
    if value == 0.0 {
        return "0".to_owned();
    }
    let shortest = format!("{value}");
    if shortest.len() <= LIMIT {
        return shortest;
    }
    // Millimetres and ratios: from about 1e-10 to 1e10, plain decimals keep the most digits.
    if (1e-6..1e14).contains(&value.abs()) {
        for decimals in (0..LIMIT).rev() {
            let text = format!("{value:.decimals$}");
            if text.len() <= LIMIT {
                return if text.contains('.') {
                    text.trim_end_matches('0').trim_end_matches('.').to_owned()
                } else {
                    text
                };
            }
        }
    }
    let exponents = (0..LIMIT).rev().map(|digits| format!("{value:.digits$e}"));
    exponents
        .into_iter()
        .find(|text| text.len() <= LIMIT)
        .unwrap_or_else(|| "0".to_owned())
}

/// The decimal strings that the source wrote, if they are valid and say the same numbers (to a ten-thousandth); otherwise the numbers written anew.
pub(super) fn decimals_as_written(written: &str, values: &[f64]) -> String {
    let parts: Vec<&str> = written.split('\\').map(str::trim).collect();
    let anew = |value: &f64| decimal(*value);
    if parts.len() != values.len() {
        return values.iter().map(anew).collect::<Vec<_>>().join("\\");
    }
    let each = parts.iter().zip(values).map(|(part, value)| {
        let valid = part.len() <= 16 && part.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        let same = part.parse::<f64>().is_ok_and(|parsed| (parsed - value).abs() < 1e-4);
        if valid && same { (*part).to_owned() } else { anew(value) }
    });
    each.collect::<Vec<_>>().join("\\")
}

/// A date as DA wants it: eight digits that are a month and a day.
pub(super) fn is_date(text: &str) -> bool {
    let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    digits && (1..=12).contains(&number(4..6)) && (1..=31).contains(&number(6..8))
}

/// A time as TM wants it: HH, HHMM or HHMMSS, and a fraction of up to six digits.
pub(super) fn is_time(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let below = |at: usize, limit: u32| {
        whole
            .get(at..at + 2)
            .is_none_or(|part| part.parse::<u32>().is_ok_and(|n| n < limit))
    };
    let shape = matches!(whole.len(), 2 | 4 | 6) && digits(whole) && digits(fraction) && fraction.len() <= 6;
    shape && (whole.len() == 6 || !text.contains('.')) && below(0, 24) && below(2, 60) && below(4, 61)
}

/// CIELab of an sRGB colour under D65, scaled to 16 bits (PS3.3 C.10.7.1.1).
pub(super) fn cielab(rgb: [u8; 3]) -> [u16; 3] {
    let [r, g, b] = rgb.map(|channel| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    });
    let x = 0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b;
    let y = 0.212_672_9 * r + 0.715_152_2 * g + 0.072_175_0 * b;
    let z = 0.019_333_9 * r + 0.119_192_0 * g + 0.950_304_1 * b;
    let f = |t: f64| {
        if t > 216.0 / 24389.0 {
            t.cbrt()
        } else {
            (24389.0 / 27.0 * t + 16.0) / 116.0
        }
    };
    let (fx, fy, fz) = (f(x / 0.950_47), f(y), f(z / 1.088_83));
    let (l, a, b) = (116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz));
    let scale = |value: f64, low: f64, range: f64| ((value - low) / range * 65535.0).clamp(0.0, 65535.0).round() as u16;
    [scale(l, 0.0, 100.0), scale(a, -128.0, 255.0), scale(b, -128.0, 255.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_short_and_near() {
        assert_eq!(decimal(-177.8), "-177.8");
        assert_eq!(decimal(0.1 + 0.2), "0.3");
        assert_eq!(decimal(-123.456_789_012_345_67), "-123.45678901235");
        assert_eq!(decimal(1.0 / 3.0), "0.33333333333333");
        assert_eq!(decimal(-0.0), "0");
    }

    proptest! {
        #[test]
        fn every_decimal_fits_and_reads_back(value in -1e5f64..1e5) {
            let text = decimal(value);
            prop_assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().expect("a decimal string is a number");
            prop_assert!((back - value).abs() <= 1e-9 * value.abs().max(1.0), "{value} became {text}");
        }

        #[test]
        fn no_number_makes_a_decimal_of_17_characters(value in proptest::num::f64::NORMAL) {
            prop_assert!(decimal(value).len() <= 16);
        }
    }

    #[test]
    fn what_the_source_wrote_is_kept_digit_for_digit() {
        assert_eq!(
            decimals_as_written("-177.80\\ +2.5e1\\006.972656e-01", &[-177.8, 25.0, 0.697_265_6]),
            "-177.80\\+2.5e1\\006.972656e-01"
        );
        assert_eq!(
            decimals_as_written("-177.8000000000000001\\1", &[-177.8, 1.0]),
            "-177.8\\1",
            "longer than 16 characters"
        );
        assert_eq!(
            decimals_as_written("1\\2", &[1.0, 2.5]),
            "1\\2.5",
            "says another number"
        );
        assert_eq!(decimals_as_written("", &[1.0, 2.5]), "1\\2.5");
    }

    #[test]
    fn dates_and_times_that_no_calendar_knows_are_refused() {
        assert!(is_date("20231231") && !is_date("20231331") && !is_date("2023.12.31") && !is_date(""));
        assert!(
            is_time("1201")
                && is_time("120159.123456")
                && !is_time("12:01:59")
                && !is_time("250000")
                && !is_time("1201.5")
                && !is_time("")
                && !is_time("120000.")
        );
    }

    #[test]
    fn colours_are_those_of_highdicom_and_dcmqi() {
        for (rgb, expected) in [
            ([224, 97, 76], [37352u16, 45282, 42259]),
            ([76, 97, 224], [30322, 41242, 15621]),
        ] {
            for (ours, theirs) in cielab(rgb).into_iter().zip(expected) {
                assert!(ours.abs_diff(theirs) <= 40, "{:?} is not {expected:?}", cielab(rgb));
            }
        }
    }

    #[test]
    fn our_own_text_is_plain_ascii() {
        assert_eq!(plain("Müller\\Kernel ", 64), "M?ller/Kernel");
        assert_eq!(plain(&"a".repeat(80), 64).len(), 64);
        assert_eq!(plain_values("VA10\\ï", 64), "VA10\\?");
    }
}
