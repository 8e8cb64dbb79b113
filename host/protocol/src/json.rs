//! The protocol's JSON: RFC 8259, except for texts that languages interpret differently.
//!
//! A validator in one language must see the same message as a receiver in another. An unpaired surrogate escape is an
//! error in some languages and a character in others; a number of thousands of digits is refused by some and truncated
//! by others; and deep nesting exhausts the stack of recursive parsers. Such text is refused on every input path.

use memchr::memchr2;
use serde::de::IgnoredAny;

use super::{ErrorCode, JSON_DEPTH_MAX};

/// Maximum length of a number, in characters.
pub const NUMBER_CHARS_MAX: usize = 400;

/// A shorter text contains neither a number that is too long nor brackets that nest too deep, because each bracket
/// opens and closes.
const CAN_EXCEED_BYTES: usize = {
    let brackets = 2 * JSON_DEPTH_MAX;
    if brackets < NUMBER_CHARS_MAX {
        brackets
    } else {
        NUMBER_CHARS_MAX
    }
};

/// Why a text is refused. `Display` is for people and reveals nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// It violates RFC 8259; the message names the place.
    #[error("it is not valid JSON: {0}")]
    Syntax(String),
    /// Arrays and objects nest deeper than [`JSON_DEPTH_MAX`].
    #[error("the JSON is nested more than {JSON_DEPTH_MAX} levels deep")]
    TooDeep,
    /// An escape is half of a character that needs two escapes.
    #[error(
        "the string escape at byte {at} is half of a surrogate pair; send the whole character, or leave it out"
    )]
    UnpairedSurrogate {
        /// The offset of the escape.
        at: usize,
    },
    /// A number has more than [`NUMBER_CHARS_MAX`] characters.
    #[error(
        "the number at byte {at} has more than {NUMBER_CHARS_MAX} characters; send it as a string"
    )]
    LongNumber {
        /// The offset of the number.
        at: usize,
    },
}

impl JsonFault {
    /// The error code that the sender gets.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Syntax(_) => ErrorCode::InvalidFrame,
            Self::TooDeep => ErrorCode::TooDeep,
            Self::UnpairedSurrogate { .. } | Self::LongNumber { .. } => ErrorCode::InvalidPayload,
        }
    }
}

/// Checks that `text` is one JSON value that every language interprets alike.
///
/// # Errors
/// Returns the first rule that it breaks.
pub fn check(text: &str) -> Result<(), JsonFault> {
    check_rules(text)?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(()),
        Err(error) => Err(JsonFault::Syntax(error.to_string())),
    }
}

/// Checks everything but the syntax, for callers that parse `text` anyway: nesting, surrogates and the length of
/// numbers.
///
/// # Errors
/// Returns the first rule that it breaks. A text that is not JSON may break none.
pub fn check_rules(text: &str) -> Result<(), JsonFault> {
    let bytes = text.as_bytes();
    if bytes.len() < CAN_EXCEED_BYTES && !bytes.contains(&b'\\') {
        return Ok(());
    }
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => end_of_string(bytes, at + 1)?,
            b'-' | b'0'..=b'9' => end_of_number(bytes, at)?,
            b'[' | b'{' if depth == JSON_DEPTH_MAX => return Err(JsonFault::TooDeep),
            b'[' | b'{' => {
                depth += 1;
                at + 1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            _ => at + 1,
        };
    }
    Ok(())
}

/// The end of the string whose first character is at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> Result<usize, JsonFault> {
    while let Some(found) = memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return Ok(at + 1);
        }
        at = match unit(&bytes[at..]) {
            Some(0xD800..=0xDBFF) if is_low_surrogate(&bytes[at + 6..]) => at + 12,
            Some(0xD800..=0xDFFF) => return Err(JsonFault::UnpairedSurrogate { at }),
            Some(_) => at + 6,
            None => (at + 2).min(bytes.len()),
        };
    }
    Ok(bytes.len())
}

fn is_low_surrogate(bytes: &[u8]) -> bool {
    matches!(unit(bytes), Some(0xDC00..=0xDFFF))
}

/// The UTF-16 code unit of the escape that `bytes` begin with.
fn unit(bytes: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes else {
        return None;
    };
    digits.get(..4)?.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// The end of the number that begins at `start`.
fn end_of_number(bytes: &[u8], start: usize) -> Result<usize, JsonFault> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let chars = bytes[start..]
        .iter()
        .take_while(|byte| is_part(byte))
        .count();
    if chars > NUMBER_CHARS_MAX {
        return Err(JsonFault::LongNumber { at: start });
    }
    Ok(start + chars)
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};
    use serde_json::Value;

    use super::*;

    fn code(text: &str) -> Option<ErrorCode> {
        check(text).err().map(|fault| fault.code())
    }

    #[test]
    fn an_unpaired_surrogate_escape_is_refused_in_values_and_in_keys() {
        for half in [
            r"\ud83d",
            r"\uD83D",
            r"\udbff",
            r"\uDC00",
            r"\udfff",
            r"\ude00\ud83d",
            r"\ud83d\ud83d\ude00",
            r"\ud83d \ude00",
            r"\ud83d\n\ude00",
            r"\ud83d\\ude00",
            r"\ud83d\u0041",
            r"\ud83dA",
            r"\\\ud83d",
        ] {
            for text in [
                format!(r#""{half}""#),
                format!(r#""spam {half}""#),
                format!(r#"[1,{{"a":"{half} b"}}]"#),
                format!(r#"{{"{half}":1}}"#),
                format!(r#"{{"text":"fine","{half}x":null}}"#),
            ] {
                assert_eq!(code(&text), Some(ErrorCode::InvalidPayload), "{text}");
            }
        }
    }

    #[test]
    fn surrogate_pairs_and_lookalikes_are_accepted() {
        for text in [
            r#""\ud83d\ude00""#,
            r#""\uD83D\uDE00""#,
            r#""\udbff\udfff\ud800\udc00""#,
            r#""\\ud83d""#,
            r#""\\\\ud83d""#,
            r#""\u0000\u001f\ud7ff\ue000\uffff""#,
            r#"{"\ud83d\ude00":"\u00e4\/"}"#,
            "\"\u{1f600}\u{2028}\"",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_number_has_at_most_400_characters_however_it_is_written() {
        for (start, end) in [("", ""), ("-", ""), ("0.", ""), ("1", "e5"), ("-1.", "E-7")] {
            let number = |chars: usize| {
                let zeros = "1".repeat(chars - start.len() - end.len());
                format!("{start}{zeros}{end}")
            };
            for (before, after) in [("", ""), ("[1,", "]"), (r#"{"a":[{"b": "#, "}]}")] {
                let text = |chars| format!("{before}{}{after}", number(chars));
                assert_eq!(check(&text(400)), Ok(()), "{start}…{end}");
                let fault = check(&text(401));
                assert_eq!(
                    fault,
                    Err(JsonFault::LongNumber { at: before.len() }),
                    "{start}…{end}"
                );
            }
        }
        assert_eq!(check(&format!(r#""{}""#, "1".repeat(5000))), Ok(()));
        assert_eq!(check("[1e308,1e309,1E400,-0.0]"), Ok(()));
    }

    #[test]
    fn nesting_ends_at_100_levels() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = |depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(check(&nested(100)), Ok(()));
            assert_eq!(check(&nested(101)), Err(JsonFault::TooDeep));
            assert_eq!(check(&nested(60_000)), Err(JsonFault::TooDeep));
        }
        assert_eq!(check(&format!("[{}1]", "[],".repeat(300))), Ok(()));
        assert_eq!(check(&format!(r#""\"{}""#, "[".repeat(300))), Ok(()));
    }

    #[test]
    fn invalid_json_is_refused_without_names_of_rust_types() {
        let long = format!(r#"{{"a":"{}"#, "x".repeat(500));
        for text in [
            "",
            " ",
            "x",
            "{",
            "[1,]",
            "01",
            "1 2",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud83d",
            "\"\n\"",
            "\u{feff}1",
            "NaN",
            "'a'",
            r#"{a:1}"#,
            r#"{1:1}"#,
            &long,
        ] {
            let fault = check(text).expect_err(text).to_string();
            for name in ["struct", "u64", "i32", "f64", "unit", "IgnoredAny"] {
                assert!(!fault.contains(name), "{fault}");
            }
        }
        assert_eq!(code("[1"), Some(ErrorCode::InvalidFrame));
    }

    /// Text that is JSON, or nearly: pieces in any order between matching brackets.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just(r#""\ud83d""#.to_owned()),
            Just(r#""\ud83d\ude00""#.to_owned()),
            Just(r#""\uDE00\uD83D""#.to_owned()),
            Just(r#""\\ud83d""#.to_owned()),
            Just("-1.5e3".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just("01".to_owned()),
            r#""[a-z\\u0dDeE8 ]{0,12}""#,
            r#""(\\u[dD][89a-fA-F][0-9]{2}|x|\\\\|\\n){0,4}""#,
            "[ -~]{0,6}",
        ];
        piece.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                collection::vec((r#""(\\u[dD][89a-f]00)?[a-z]{0,3}""#, inner), 0..4).prop_map(
                    |fields| {
                        let fields: Vec<_> = fields
                            .into_iter()
                            .map(|(name, value)| format!("{name}:{value}"))
                            .collect();
                        format!("{{{}}}", fields.join(" , "))
                    }
                ),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// A parser that builds every string detects each half of a pair.
        #[test]
        fn it_agrees_with_a_full_json_parser(text in nearly_json(), padding in prop_oneof![Just(0_usize), Just(300)]) {
            let text = format!("{}{text}", " ".repeat(padding));
            let parsed = serde_json::from_str::<Value>(&text);
            // The only JSON that it refuses and we accept: `1e999` is not an `f64`.
            prop_assume!(!matches!(&parsed, Err(error) if error.to_string().contains("out of range")));
            prop_assert_eq!(check(&text).is_ok(), parsed.is_ok(), "{} {:?}", text, parsed);
        }

        #[test]
        fn any_text_is_judged_without_a_panic(text in "\\PC*", cut in ".*\\\\(u[dD]?[89a-f]?)?") {
            let _ = check(&text);
            let _ = check(&format!("\"{cut}"));
        }

        #[test]
        fn json_written_by_serde_is_accepted(text in "\\PC*", number in any::<f64>()) {
            let json = serde_json::json!({ &text: [&text, number, { "a": null }] }).to_string();
            prop_assert_eq!(check(&json), Ok(()));
        }
    }
}
