//! Strict JSON: refuses text that two receivers could read differently, regardless of the type that it is parsed as.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// The deepest nesting that the server allows in a payload.
const LEVELS_MAX: usize = 100;

const LEVELS: &str = "is nested more than 100 levels deep";
const TWICE: &str = "has an object with the same key twice";
const NUMBER: &str = "has a number that is too large";
const SURROGATE: &str = "has half of a surrogate pair in a text";
const NOT_JSON: &str = "is not JSON";

/// Reads all of `json` and returns its string values.
///
/// # Errors
/// Describes the problem as a predicate that follows "the payload".
pub(super) fn texts(json: &str) -> Result<Vec<Cow<'_, str>>, &'static str> {
    let mut texts = Vec::new();
    read(json, Some(&mut texts))?;
    Ok(texts)
}

/// Like `texts`, but only checks.
pub(super) fn check(json: &str) -> Result<(), &'static str> {
    read(json, None)
}

fn read<'j>(json: &'j str, texts: Option<&mut Vec<Cow<'j, str>>>) -> Result<(), &'static str> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = Value { level: 1, texts };
    let read = value.deserialize(&mut deserializer);
    read.and_then(|()| deserializer.end())
        .map_err(|error| reason(&error))
}

/// Describes the problem in the same words as the SDKs for other languages.
fn reason(error: &serde_json::Error) -> &'static str {
    let text = error.to_string();
    if let Some(own) = [LEVELS, TWICE]
        .into_iter()
        .find(|own| text.starts_with(own))
    {
        own
    } else if text.starts_with("number out of range") {
        NUMBER
    } else if text.contains("hex escape") {
        SURROGATE
    } else {
        NOT_JSON
    }
}

/// A value and its nesting level. Its string values are added to `texts`, if present.
struct Value<'t, 'j> {
    level: usize,
    texts: Option<&'t mut Vec<Cow<'j, str>>>,
}

impl<'j> Value<'_, 'j> {
    fn take(self, text: Cow<'j, str>) {
        if let Some(texts) = self.texts {
            texts.push(text);
        }
    }

    /// A value nested in this one.
    fn below(&mut self) -> Value<'_, 'j> {
        Value {
            level: self.level + 1,
            texts: self.texts.as_deref_mut(),
        }
    }

    fn open<E: Error>(&self) -> Result<(), E> {
        if self.level > LEVELS_MAX {
            return Err(E::custom(LEVELS));
        }
        Ok(())
    }
}

impl<'j> DeserializeSeed<'j> for Value<'_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for Value<'_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.take(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'j str) -> Result<(), E> {
        self.take(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'j>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.open()?;
        while items.next_element_seed(self.below())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'j>>(mut self, mut fields: A) -> Result<(), A::Error> {
        self.open()?;
        let mut keys = BTreeSet::new();
        while let Some(key) = fields.next_key_seed(Key)? {
            if !keys.insert(key) {
                return Err(A::Error::custom(TWICE));
            }
            fields.next_value_seed(self.below())?;
        }
        Ok(())
    }
}

/// The name of a field, borrowed if it has no escape.
struct Key;

impl<'j> DeserializeSeed<'j> for Key {
    type Value = Cow<'j, str>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'j> Visitor<'j> for Key {
    type Value = Cow<'j, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }

    fn visit_borrowed_str<E>(self, name: &'j str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_json_is_refused() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        for (json, reason) in [
            ("", NOT_JSON),
            ("{} {}", NOT_JSON),
            ("\"a", NOT_JSON),
            (r#"{"a":1,"\u0061":2}"#, TWICE),
            (r#"[{"b":{"a":1,"a":1}}]"#, TWICE),
            (r#""\ud83d""#, SURROGATE),
            (r#""\ud83d :)""#, SURROGATE),
            (r#"["\ude00"]"#, SURROGATE),
            (r#"{"\ud83d\u0041":1}"#, SURROGATE),
            ("1e400", NUMBER),
            (&"9".repeat(5000), NUMBER),
            (&deep(101), LEVELS),
            (&deep(5000), LEVELS),
        ] {
            assert_eq!(read(json, None), Err(reason), "{json:.40}");
        }
        for json in [
            r#""\ud83d\ude00""#,
            r#""\\ud83d""#,
            r#"{"a":{"a":1}}"#,
            "1e-400",
            "18446744073709551616",
            &deep(100),
        ] {
            assert_eq!(check(json), Ok(()), "{json:.40}");
        }
    }

    #[test]
    fn texts_are_found_wherever_they_stand() {
        let json = r#" ["a", {"k":"b","n":[1,{"x":"\u0063"}]}, null] "#;
        assert_eq!(
            texts(json),
            Ok(vec!["a".into(), "b".into(), Cow::from("c")])
        );
        assert_eq!(texts(r#""alone""#), Ok(vec!["alone".into()]));
    }
}
