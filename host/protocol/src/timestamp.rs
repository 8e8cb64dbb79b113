//! The time in messages: RFC 3339, in UTC, with microseconds; and in milliseconds since 1970.

use std::{
    cell::RefCell,
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

thread_local! {
    /// The last second that this thread wrote. A busy server writes thousands of times within each second, and computing
    /// the date takes longer than writing it.
    static LAST: RefCell<Second> = const { RefCell::new(Second { number: u64::MAX, text: String::new() }) };
}

/// A second since 1970, and its text, such as `2026-01-31T12:00:00`.
struct Second {
    number: u64,
    text: String,
}

impl Second {
    fn set(&mut self, number: u64) {
        if self.number == number {
            return;
        }
        self.number = number;
        self.text.clear();
        let time = UNIX_EPOCH + Duration::from_secs(number);
        // Fails only for years beyond 9999.
        let _ = write!(self.text, "{}", humantime::format_rfc3339_seconds(time));
        self.text.pop();
    }
}

/// `time` in milliseconds since 1970-01-01T00:00:00Z; 0 before.
pub fn unix_millis(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// The text of `time`, as [`push`] writes it.
pub fn text(time: SystemTime) -> String {
    let mut text = String::new();
    push(&mut text, time);
    text
}

/// Appends `time` to `text`. A time before 1970 is written as the beginning of that year.
pub(super) fn push(text: &mut String, time: SystemTime) {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|second| {
        second.set(since_1970.as_secs());
        text.push_str(&second.text);
    });
    let mut micros = since_1970.subsec_micros();
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit += (micros % 10) as u8;
        micros /= 10;
    }
    text.push('.');
    digits
        .iter()
        .for_each(|digit| text.push(char::from(*digit)));
    text.push('Z');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_ends_and_the_next_begins() {
        let at = |micros| text(UNIX_EPOCH + Duration::from_micros(micros));
        assert_eq!(at(1_769_860_799_999_999), "2026-01-31T11:59:59.999999Z");
        assert_eq!(at(1_769_860_800_000_000), "2026-01-31T12:00:00.000000Z");
        assert_eq!(at(1_769_860_800_000_042), "2026-01-31T12:00:00.000042Z");
        assert_eq!(at(1_769_860_799_000_000), "2026-01-31T11:59:59.000000Z");
    }

    #[test]
    fn a_clock_that_is_wrong_by_decades_does_no_harm() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(text(before), "1970-01-01T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn it_is_the_text_of_the_library(micros in 0..253_402_300_800_000_000_u64) {
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            let expected = humantime::format_rfc3339_micros(time).to_string();
            prop_assert_eq!(text(time), expected.clone());
            prop_assert_eq!(text(time), expected);
        }
    }
}
