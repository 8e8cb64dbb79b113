//! Explains to a client why its payload does not fit. The explanation uses JSON terms, because the plugin's types are
//! internal.

/// Describes the mismatch as a predicate that follows "the payload".
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(text, _)| text);
    for (kind, of) in [
        ("missing field ", "lacks the key"),
        ("duplicate field ", "has twice the key"),
    ] {
        if let Some(name) = text.strip_prefix(kind) {
            return format!("{of} {name}");
        }
    }
    let expected = text.split_once(", expected ");
    if let Some((found, expected)) = expected {
        if let Some(name) = found.strip_prefix("unknown field ") {
            return format!("has the key {name}, which is not known");
        }
        if let Some(name) = found.strip_prefix("unknown variant ") {
            return format!("has {name} where {expected} is expected");
        }
        let found = found
            .strip_prefix("invalid type: ")
            .or_else(|| found.strip_prefix("invalid value: "));
        if let Some(reason) = found.and_then(|found| compared(found, expected)) {
            return reason;
        }
    }
    "does not have the form that is expected".to_owned()
}

fn compared(found: &str, expected: &str) -> Option<String> {
    let (found, expected) = (kind(found, &FOUND)?, kind(expected, &EXPECTED)?);
    Some(match found == expected {
        true if found == NUMBER => "has a number that is out of range".to_owned(),
        true => return None,
        false => format!("has {found} where {expected} is expected"),
    })
}

const NUMBER: &str = "a number";

/// Serde's names for the values that it finds, and the JSON terms for them.
const FOUND: [(&str, &str); 9] = [
    ("string", "a text"),
    ("character", "a text"),
    ("map", "an object"),
    ("sequence", "a list"),
    ("integer", NUMBER),
    ("floating point", NUMBER),
    ("boolean", "true or false"),
    ("null", "null"),
    ("unit", "null"),
];

/// Serde's names for the types that it expects, and the JSON terms for them.
const EXPECTED: [(&str, &str); 13] = [
    ("a string", "a text"),
    ("a borrowed string", "a text"),
    ("a character", "a text"),
    ("string or map", "a text or an object"),
    ("a map", "an object"),
    ("struct ", "an object"),
    ("a sequence", "a list"),
    ("a tuple", "a list"),
    ("an array", "a list"),
    ("a boolean", "true or false"),
    ("i", NUMBER),
    ("u", NUMBER),
    ("f", NUMBER),
];

fn kind(said: &str, kinds: &[(&str, &'static str)]) -> Option<&'static str> {
    let found = kinds.iter().find(|(begins, kind)| {
        // The names of Rust's number types: i32, usize, f64.
        let is_number = *kind == NUMBER && begins.len() == 1;
        let rest = said.strip_prefix(begins);
        rest.is_some_and(|rest| {
            !is_number || rest == "size" || rest.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    found.map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Secret {
        #[serde(rename = "text")]
        _text: String,
        #[serde(default, rename = "size")]
        _size: u8,
        #[serde(default, rename = "kind")]
        _kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Big,
        Small,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "nothing is read into it")]
    enum Either {
        _Text(String),
        _Secret(Secret),
    }

    fn said<T: for<'de> Deserialize<'de> + std::fmt::Debug>(json: &str) -> String {
        reason(&serde_json::from_str::<T>(json).expect_err("it does not fit"))
    }

    #[test]
    fn error_messages_for_clients_use_json_terms() {
        for (json, reason) in [
            ("7", "has a number where an object is expected"),
            ("{}", "lacks the key `text`"),
            (r#"{"text":null}"#, "has null where a text is expected"),
            (
                r#"{"text":"","size":"x"}"#,
                "has a text where a number is expected",
            ),
            (
                r#"{"text":"","size":300}"#,
                "has a number that is out of range",
            ),
            (
                r#"{"text":"","size":1.5}"#,
                "has a number that is out of range",
            ),
            (
                r#"{"text":"","color":1}"#,
                "has the key `color`, which is not known",
            ),
            (r#"{"text":"","text":""}"#, "has twice the key `text`"),
            (
                r#"{"text":"","kind":"odd"}"#,
                "has `odd` where `big` or `small` is expected",
            ),
        ] {
            assert_eq!(said::<Secret>(json), reason, "{json}");
        }
        assert_eq!(
            said::<BTreeMap<String, Vec<bool>>>(r#"{"a":{}}"#),
            "has an object where a list is expected"
        );
    }

    #[test]
    fn reasons_name_no_types_of_the_plugin() {
        for said in [
            said::<Either>("7"),
            said::<Secret>("[]"),
            said::<(u8, Kind)>(r#"[1,7]"#),
            said::<Kind>("7"),
        ] {
            for name in ["Secret", "Either", "Kind", "struct", "enum", "u8"] {
                assert!(!said.contains(name), "{said}");
            }
        }
    }
}
