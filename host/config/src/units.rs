//! Durations (`"25s"`) and sizes (`"64KiB"`) as people write them, and back.

use std::time::Duration;

/// The reason why a duration or a size cannot be read, without the text itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing was written.
    #[error("is empty")]
    Empty,
    /// A number lacks the unit that it needs.
    #[error("has no unit")]
    NoUnit,
    /// It does not begin with a whole number.
    #[error("does not start with a whole number")]
    NoNumber,
    /// The unit is unknown.
    #[error("has an unknown unit; write {0}")]
    UnknownUnit(&'static str),
    /// More than fits into 64 bits.
    #[error("is too large")]
    TooLarge,
    /// Anything else.
    #[error("is not a duration")]
    Malformed,
}

const DURATION_UNITS: &str = "ms, s, m, h or days";
const SIZE_UNITS: &str = "B, KB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024)";

/// The units of a size with the bytes of each, longest first, because the first match is used.
const SIZES: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Reads `"25s"`, `"10ms"`, `"1h 30m"`: numbers, each with a unit.
///
/// # Errors
///
/// [`UnitError`] if the text is malformed, or the value does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let text = text.trim();
    humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::Empty => UnitError::Empty,
        humantime::DurationError::NumberExpected(_) => UnitError::NoNumber,
        humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => UnitError::NoUnit,
        humantime::DurationError::UnknownUnit { .. } => UnitError::UnknownUnit(DURATION_UNITS),
        humantime::DurationError::NumberOverflow => UnitError::TooLarge,
        humantime::DurationError::InvalidCharacter(_) => UnitError::Malformed,
    })
}

/// Writes a duration so that [`parse_duration`] reads it back: `25s`, `1h 30m`.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Reads `"64KiB"`, `"10MB"`, `"512"`: a whole number of bytes or of a unit, whatever the case of the unit.
///
/// # Errors
///
/// [`UnitError`] if the text is malformed, or the value exceeds 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err(UnitError::NoNumber);
    }
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    let unit = unit.trim_start();
    let scale = match unit {
        "" => 1,
        unit => SIZES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, bytes)| *bytes)
            .ok_or(UnitError::UnknownUnit(SIZE_UNITS))?,
    };
    number.checked_mul(scale).ok_or(UnitError::TooLarge)
}

/// Writes a size so that [`parse_bytes`] reads it back, in the largest unit of 1024 that divides it: `64KiB`.
pub fn format_bytes(bytes: u64) -> String {
    let unit = SIZES[..3]
        .iter()
        .rev()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    match unit {
        Some((name, size)) => format!("{}{name}", bytes / size),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_in_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("7B", 7),
            ("64KiB", 65_536),
            ("1 mib", 1 << 20),
            ("10MB", 10_000_000),
            ("2GiB", 2 << 30),
            (" 3kb ", 3_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn an_invalid_size_is_refused_with_the_reason() {
        assert_eq!(parse_bytes(""), Err(UnitError::Empty));
        assert_eq!(parse_bytes("KiB"), Err(UnitError::NoNumber));
        assert_eq!(parse_bytes("-1"), Err(UnitError::NoNumber));
        assert_eq!(
            parse_bytes("1.5MiB"),
            Err(UnitError::UnknownUnit(SIZE_UNITS))
        );
        assert_eq!(parse_bytes("1K"), Err(UnitError::UnknownUnit(SIZE_UNITS)));
        assert_eq!(
            parse_bytes("99999999999999999999"),
            Err(UnitError::TooLarge)
        );
        assert_eq!(parse_bytes("99999999999GiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn durations_in_every_unit() {
        for (text, millis) in [
            ("10ms", 10),
            ("25s", 25_000),
            ("1m", 60_000),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn an_invalid_duration_is_refused_with_the_reason() {
        assert_eq!(parse_duration(""), Err(UnitError::Empty));
        assert_eq!(parse_duration("25"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration("soon"), Err(UnitError::NoNumber));
        assert_eq!(
            parse_duration("25 sheep"),
            Err(UnitError::UnknownUnit(DURATION_UNITS))
        );
        assert_eq!(
            parse_duration("99999999999999999999s"),
            Err(UnitError::TooLarge)
        );
        assert_eq!(parse_duration("1#s"), Err(UnitError::Malformed));
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes: u64) {
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }

        #[test]
        fn a_written_duration_reads_back(millis in 0u64..100_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = parse_bytes(&text);
            let _ = parse_duration(&text);
        }
    }
}
