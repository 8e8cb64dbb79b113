//! The body of a request: one JSON object, whose fields are taken out one by one.

use std::collections::HashSet;

use axum::http::{HeaderMap, StatusCode, header};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use signalbox_protocol::{ErrorCode, json};

use crate::http::error::ApiError;

/// Maximum length of a field name in an error message, in characters.
const SHOWN_CHARS_MAX: usize = 40;

/// The fault of a body: an error code of the WebSocket protocol, and a text for people.
pub(super) type BodyError = (ErrorCode, String);

/// A list of names, each of which it contains once.
#[derive(Debug)]
pub(super) struct NameList {
    /// The names, in the order in which they first occur.
    pub(super) names: Vec<String>,
    /// Its length as JSON, in bytes.
    pub(super) bytes: usize,
}

/// The fault of a body without the field `name`.
pub(super) fn missing(name: &str) -> BodyError {
    (ErrorCode::InvalidFrame, format!("`{name}` is missing"))
}

fn wrong<T>(message: String) -> Result<T, BodyError> {
    Err((ErrorCode::InvalidFrame, message))
}

/// Refuses a body that is declared as anything but JSON in UTF-8. The content types that HTTP clients send by default
/// are accepted.
///
/// # Errors
/// Returns 415 with the media type to send if the body is declared as something else.
pub(super) fn check_content(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_json = text(header::CONTENT_TYPE).is_none_or(declares_json);
    let is_plain = text(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.trim().eq_ignore_ascii_case("identity"));
    if is_json && is_plain {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body must be JSON in UTF-8, not compressed: send it with `Content-Type: application/json`",
    ))
}

fn declares_json(content_type: &str) -> bool {
    let lower = content_type.to_ascii_lowercase();
    let mut parts = lower.split(';').map(str::trim);
    let is_json = match parts.next().unwrap_or_default() {
        // The default of curl, and of libraries that send bytes or text.
        "" | "application/x-www-form-urlencoded" | "application/octet-stream" | "text/plain" => {
            true
        }
        "application/json" | "text/json" => true,
        other => other.starts_with("application/") && other.ends_with("+json"),
    };
    let charset = parts.find_map(|part| part.strip_prefix("charset="));
    let is_utf8 = charset
        .is_none_or(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii"));
    is_json && is_utf8
}

/// The fields that have not been taken yet.
#[derive(Debug)]
pub(super) struct Object<'a> {
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Parses `body`.
    ///
    /// # Errors
    /// Returns the fault if the body is not UTF-8, breaks the [rules for JSON](json::check), or is not an object.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        if let Ok(text) = std::str::from_utf8(body) {
            json::check_rules(text).map_err(|fault| (fault.code(), fault.to_string()))?;
        }
        Self::parse_unchecked(body)
    }

    /// Parses `body`, whose fields may break the [rules for JSON](json::check): the caller must check them.
    ///
    /// # Errors
    /// Returns the fault if the body is not UTF-8, or is not an object.
    pub(super) fn parse_unchecked(body: &'a [u8]) -> Result<Self, BodyError> {
        let Ok(text) = std::str::from_utf8(body) else {
            return wrong("the body is not UTF-8".to_owned());
        };
        let BodyFields(fields) = match serde_json::from_str(text) {
            Ok(fields) => fields,
            Err(error) if error.is_data() => {
                return wrong("the body is not a JSON object".to_owned());
            }
            Err(error) => return wrong(format!("the body is not valid JSON: {error}")),
        };
        Ok(Self { fields })
    }

    /// Takes a field by one of its names; `None` if it is missing or `null`.
    fn take(&mut self, names: &[&str]) -> Result<Option<&'a RawValue>, BodyError> {
        let is_it = |(name, _): &(String, _)| names.contains(&name.as_str());
        let Some(place) = self.fields.iter().position(is_it) else {
            return Ok(None);
        };
        let (_, value) = self.fields.swap_remove(place);
        if self.fields.iter().any(is_it) {
            return wrong(format!("`{}` stands there twice; send it once", names[0]));
        }
        Ok(Some(value).filter(|value| value.get() != "null"))
    }

    /// Takes a field as JSON text.
    pub(super) fn json(&mut self, name: &str) -> Result<Option<&'a str>, BodyError> {
        Ok(self.take(&[name])?.map(RawValue::get))
    }

    /// Takes a string, by one of its names.
    pub(super) fn text(&mut self, names: &[&str]) -> Result<Option<String>, BodyError> {
        self.parsed(names, "a string")
    }

    /// Takes a Boolean; a missing field is `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, BodyError> {
        Ok(self
            .parsed(&[name], "`true` or `false`")?
            .unwrap_or_default())
    }

    /// Takes a whole number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, BodyError> {
        self.parsed(&[name], "a whole number")
    }

    /// Takes a list of 1 to `most` strings.
    pub(super) fn names(&mut self, name: &str, most: usize) -> Result<Option<NameList>, BodyError> {
        let Some(value) = self.take(&[name])? else {
            return Ok(None);
        };
        let parsed: Result<Vec<String>, _> = serde_json::from_str(value.get());
        let mut names = match parsed {
            Ok(names) if (1..=most).contains(&names.len()) => names,
            _ => return wrong(format!("`{name}` must be a list of 1 to {most} strings")),
        };
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let bytes = value.get().len();
        Ok(Some(NameList { names, bytes }))
    }

    /// Takes a list of 1 to `most` values, which must be there, as JSON texts.
    pub(super) fn list(&mut self, name: &str, most: usize) -> Result<Vec<&'a str>, BodyError> {
        let value = self.take(&[name])?.ok_or_else(|| missing(name))?;
        let parsed: Result<Vec<&RawValue>, _> = serde_json::from_str(value.get());
        match parsed {
            Ok(values) if (1..=most).contains(&values.len()) => {
                Ok(values.into_iter().map(RawValue::get).collect())
            }
            _ => wrong(format!("`{name}` must be a list of 1 to {most} objects")),
        }
    }

    fn parsed<T: Deserialize<'a>>(
        &mut self,
        names: &[&str],
        what: &str,
    ) -> Result<Option<T>, BodyError> {
        let Some(value) = self.take(names)? else {
            return Ok(None);
        };
        match serde_json::from_str(value.get()) {
            Ok(value) => Ok(Some(value)),
            Err(_) => wrong(format!("`{}` must be {what}", names[0])),
        }
    }

    /// Checks that all fields of the call were taken. `known` names the valid ones, for the error message.
    ///
    /// # Errors
    /// Returns the fault if there is an unknown field.
    pub(super) fn finish(self, known: &str) -> Result<(), BodyError> {
        let Some((name, _)) = self.fields.first() else {
            return Ok(());
        };
        let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
        wrong(format!(
            "there is no field `{}`; the fields are {known}",
            shown.escape_debug()
        ))
    }
}

struct BodyFields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for BodyFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = BodyFields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(BodyFields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str, read: impl FnOnce(&mut Object<'_>) -> Result<(), BodyError>) -> String {
        let read = Object::parse(body.as_bytes()).and_then(|mut object| {
            read(&mut object)?;
            object.finish("`a` and `b`")
        });
        read.map_or_else(|(_, message)| message, |()| "fine".to_owned())
    }

    #[test]
    fn a_body_is_an_object_and_nothing_else() {
        for body in ["[]", r#"["a",null,"u"]"#, "null", "5", "\"a\"", "true"] {
            let reason = message(body, |_| Ok(()));
            assert_eq!(reason, "the body is not a JSON object", "{body}");
        }
        for body in ["", "{", "{}{}", "x", r#"{"a":01}"#, "{'a':1}"] {
            let reason = message(body, |_| Ok(()));
            assert!(
                reason.starts_with("the body is not valid JSON: "),
                "{reason}"
            );
        }
        assert!(Object::parse(b"\xff{}").is_err());
        assert_eq!(message(" {} ", |_| Ok(())), "fine");
    }

    #[test]
    fn null_is_as_good_as_a_field_that_is_left_out() {
        let reason = message(r#"{"a":null,"b":null,"c":null,"d":null}"#, |object| {
            assert_eq!(object.text(&["a"])?, None);
            assert!(!object.flag("b")?);
            assert_eq!(object.number("c")?, None);
            assert_eq!(object.json("d")?, None);
            Ok(())
        });
        assert_eq!(reason, "fine");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_without_a_type_of_rusts() {
        for (body, expected) in [
            (r#"{"a":5}"#, "`a` must be a string"),
            (r#"{"a":["x"]}"#, "`a` must be a string"),
            (r#"{"b":"true"}"#, "`b` must be `true` or `false`"),
            (r#"{"b":1}"#, "`b` must be `true` or `false`"),
            (r#"{"c":"5"}"#, "`c` must be a whole number"),
            (r#"{"c":-1}"#, "`c` must be a whole number"),
            (r#"{"c":1.5}"#, "`c` must be a whole number"),
            (r#"{"c":1e999}"#, "`c` must be a whole number"),
        ] {
            let reason = message(body, |object| {
                object.text(&["a"])?;
                object.flag("b")?;
                object.number("c")?;
                Ok(())
            });
            assert_eq!(reason, expected, "{body}");
        }
    }

    #[test]
    fn a_field_stands_there_once_whichever_of_its_names_it_has() {
        for body in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":null,"a":"x"}"#,
            r#"{"a":"x","A":"y"}"#,
            r#"{"a":"x","\u0061":"y"}"#,
        ] {
            let reason = message(body, |object| object.text(&["a", "A"]).map(drop));
            assert_eq!(reason, "`a` stands there twice; send it once", "{body}");
        }
    }

    #[test]
    fn an_unknown_field_is_named_in_bounded_length() {
        let reason = message(r#"{"nmae":1}"#, |_| Ok(()));
        assert_eq!(
            reason,
            "there is no field `nmae`; the fields are `a` and `b`"
        );
        let long = format!(r#"{{"{}\n":1}}"#, "x".repeat(5000));
        assert!(message(&long, |_| Ok(())).len() < 200);
    }

    #[test]
    fn a_body_not_declared_as_json_in_utf8_is_refused() {
        let check = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            check_content(&headers).is_ok()
        };
        for good in [
            "application/json",
            "Application/JSON; charset=\"UTF-8\"",
            "application/vnd.api+json;charset=utf-8",
            "application/x-www-form-urlencoded",
            "text/plain;charset=UTF-8",
            "application/octet-stream",
        ] {
            assert!(check(header::CONTENT_TYPE, good), "{good}");
        }
        for bad in [
            "multipart/form-data; boundary=x",
            "application/xml",
            "text/html",
            "application/json; charset=utf-16",
            "application/json; version=1; charset=iso-8859-1",
        ] {
            assert!(!check(header::CONTENT_TYPE, bad), "{bad}");
        }
        assert!(check_content(&HeaderMap::new()).is_ok());
        assert!(check(header::CONTENT_ENCODING, "identity"));
        assert!(!check(header::CONTENT_ENCODING, "gzip"));
    }
}
