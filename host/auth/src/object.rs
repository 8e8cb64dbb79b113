//! Reads a JSON object of a token so strictly that every other reader reads the same.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use signalbox_protocol::json::{self, JsonFault};

/// The members of an object, by name.
pub(super) type Members<'t> = BTreeMap<Cow<'t, str>, &'t RawValue>;

/// Why a text is not an object that can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectError {
    ByteOrderMark,
    Syntax,
    TooDeep,
    UnpairedSurrogate,
    LongNumber,
    NotAnObject,
    Duplicate,
}

impl ObjectError {
    /// The message for a fault in the header of a token.
    pub(super) fn in_header(self) -> &'static str {
        match self {
            Self::ByteOrderMark => "its header begins with a byte order mark",
            Self::Syntax | Self::NotAnObject => {
                "it is not a signed JSON Web Token: its header is not a JSON object"
            }
            Self::TooDeep => "its header is nested more than 100 levels deep",
            Self::UnpairedSurrogate => "its header holds half of a surrogate pair",
            Self::LongNumber => "its header holds a number of more than 400 characters",
            Self::Duplicate => "its header has two members of the same name",
        }
    }

    /// The message for a fault in the claims of a token.
    pub(super) fn in_claims(self) -> &'static str {
        match self {
            Self::ByteOrderMark => "its claims begin with a byte order mark",
            Self::Syntax => "its claims are not valid JSON",
            Self::NotAnObject => "its claims are not a JSON object",
            Self::TooDeep => "its claims are nested more than 100 levels deep",
            Self::UnpairedSurrogate => "its claims hold half of a surrogate pair",
            Self::LongNumber => "its claims hold a number of more than 400 characters",
            Self::Duplicate => "it has two claims of the same name",
        }
    }
}

/// Reads the members of the object in `text`. No name may occur twice (RFC 7519 §4).
pub(super) fn read(text: &str) -> Result<Members<'_>, ObjectError> {
    if text.starts_with('\u{feff}') {
        return Err(ObjectError::ByteOrderMark);
    }
    json::check(text).map_err(|fault| match fault {
        JsonFault::TooDeep => ObjectError::TooDeep,
        JsonFault::UnpairedSurrogate { .. } => ObjectError::UnpairedSurrogate,
        JsonFault::LongNumber { .. } => ObjectError::LongNumber,
        JsonFault::Syntax(_) => ObjectError::Syntax,
    })?;
    if !text.trim_start().starts_with('{') {
        return Err(ObjectError::NotAnObject);
    }
    // The text is valid JSON, so only a repeated name can still be wrong.
    serde_json::from_str(text)
        .map(|Unique(members)| members)
        .map_err(|_| ObjectError::Duplicate)
}

struct Unique<'t>(Members<'t>);

impl<'de: 't, 't> Deserialize<'de> for Unique<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Unique<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a name occurs twice"));
                    }
                }
                Ok(Unique(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// A name, borrowed if it is written without escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'t>(#[serde(borrow)] Cow<'t, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_objects_are_read_by_name_with_any_value() {
        let members = read(" {\"a\": [1, {}], \"\\u0062\": \"x\"} ").unwrap();
        assert_eq!(members.get("a").map(|value| value.get()), Some("[1, {}]"));
        assert_eq!(members.get("b").map(|value| value.get()), Some("\"x\""));
        assert!(read("{}").unwrap().is_empty());
    }

    #[test]
    fn an_object_that_parsers_may_read_differently_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(60_000), "]".repeat(60_000));
        let long = format!("{{\"a\":{}}}", "1".repeat(401));
        for (text, fault) in [
            ("\u{feff}{}", ObjectError::ByteOrderMark),
            ("", ObjectError::Syntax),
            ("{\"a\":1", ObjectError::Syntax),
            ("{\"a\":01}", ObjectError::Syntax),
            ("[]", ObjectError::NotAnObject),
            ("7", ObjectError::NotAnObject),
            ("null", ObjectError::NotAnObject),
            ("\"{}\"", ObjectError::NotAnObject),
            ("{\"a\":1,\"a\":1}", ObjectError::Duplicate),
            ("{\"a\":1,\"\\u0061\":2}", ObjectError::Duplicate),
            ("{\"a\":\"\\ud83d\"}", ObjectError::UnpairedSurrogate),
            ("{\"\\udc00\":1}", ObjectError::UnpairedSurrogate),
            (&deep, ObjectError::TooDeep),
            (&long, ObjectError::LongNumber),
        ] {
            let start: String = text.chars().take(20).collect();
            assert_eq!(read(text).err(), Some(fault), "{start}");
        }
    }
}
