//! Compares the pass over plain messages with the general parser.

use proptest::{collection, prelude::*, sample};

use super::{super::json, *};

/// The fields according to the general parser, if the text follows all rules.
fn expected(text: &str) -> Option<String> {
    json::check_rules(text).ok()?;
    Fields::parse(text).ok().map(|fields| format!("{fields:?}"))
}

fn scanned(text: &str) -> Option<String> {
    fields(text).map(|fields| format!("{fields:?}"))
}

#[test]
fn plain_messages_are_read_without_the_general_parser() {
    for text in [
        r#"{}"#,
        r#" { "type" : "chat_message" , "payload" : { "text" : "hi" } , "receiverID" : "u2" } "#,
        r#"{"type":"a","payload":null,"room":"lobby","id":"7"}"#,
        r#"{"TYPE":"a","type":"b","Payload":1,"payload":[],"senderId":"x","timestamp":"y"}"#,
        r#"{"type":"a","payload":{"a":[{},[],{"b":[1,-0,0.5,1e9,-2.5E-7,true,false,null]}],"":""}}"#,
        r#"{"type":"a","id":"1","once":true,"ONCE":null}"#,
        r#"{"type":"a","payload":"\"\\\/\b\f\n\r\t ä 😀","unknown":{"id":5},"messageId":""}"#,
    ] {
        let found = scanned(text);
        assert!(found.is_some(), "{text}");
        assert_eq!(found, expected(text), "{text}");
    }
}

#[test]
fn nesting_and_numbers_have_the_same_limits() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"payload":{open}{close}}}"#)
    };
    let number = |chars: usize| format!(r#"{{"payload":{}}}"#, "1".repeat(chars));
    for (longest, longer) in [(nested(100), nested(101)), (number(400), number(401))] {
        assert!(scanned(&longest).is_some());
        assert_eq!(scanned(&longest), expected(&longest));
        assert_eq!(scanned(&longer), None);
        assert_eq!(expected(&longer), None);
    }
}

#[test]
fn everything_else_is_left_to_the_general_parser() {
    for text in [
        "",
        "null",
        "[]",
        r#"{"type":"a"} x"#,
        r#"{"type":"a""#,
        r#"{"type":"a",}"#,
        r#"{"type":null}"#,
        r#"{"type":5}"#,
        r#"{"type":"\u0061"}"#,
        r#"{"\u0074ype":"a"}"#,
        r#"{"ſenderId":"a"}"#,
        r#"{"payload":"\ud83d"}"#,
        r#"{"payload":"\x"}"#,
        r#"{"payload":01}"#,
        r#"{"payload":-}"#,
        r#"{"payload":1.}"#,
        r#"{"payload":1e}"#,
        r#"{"payload":[1,]}"#,
        r#"{"payload":{"a":1,}}"#,
        r#"{"payload":{"a"}}"#,
        r#"{"payload":[}}"#,
        r#"{"payload":{]}"#,
        r#"{"payload":tru}"#,
        "{\"payload\":\"\n\"}",
        "{\"type\":\"\u{1}\"}",
        "\u{feff}{}",
    ] {
        assert_eq!(scanned(text), None, "{text}");
    }
}

/// Text that is JSON, or nearly.
fn nearly_json() -> impl Strategy<Value = String> {
    let pieces = sample::select(
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\n",
            "\"",
            "\\",
            "\"a\"",
            "\"type\"",
            "\"payload\"",
            "\"id\":",
            "\"room\":\"r\"",
            "\"receiverID\"",
            "\"\\n\"",
            "\"\\u0041\"",
            "\"\\ud83d\"",
            "\"ä\"",
            "{}",
            "[]",
            "0",
            "-1",
            "1.5e+3",
            "00",
            "1.",
            "true",
            "nul",
            "null",
            "\u{1}",
            "\u{7f}",
        ][..],
    );
    collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        sample::select(
            &[
                "null",
                "true",
                "-0.5e-3",
                "12",
                "\"\\\"\"",
                "\"x y\"",
                "\"\\u00e4\""
            ][..]
        )
        .prop_map(str::to_owned),
        "[ -~äß😀]{0,12}".prop_map(|text| serde_json::json!(text).to_string()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(" ,"))),
            collection::vec(("[a-z]{0,3}", inner), 0..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(name, value)| format!("\"{name}\": {value}"))
                    .collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    })
}

/// An object with known and unknown names and values of all kinds.
fn message() -> impl Strategy<Value = String> {
    let names = sample::select(
        &[
            "type",
            "Type",
            "payload",
            "PAYLOAD",
            "receiverID",
            "senderId",
            "timestamp",
            "room",
            "id",
            "messageId",
            "once",
            "Once",
            "other",
        ][..],
    );
    collection::vec((names, value()), 0..7).prop_map(|pairs| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", pairs.join(","))
    })
}

/// A message in which one character is replaced or removed.
fn mutilated() -> impl Strategy<Value = String> {
    let other = sample::select(
        &[
            "", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "e", "\u{2}", "ä",
        ][..],
    );
    (message(), any::<sample::Index>(), other).prop_map(|(text, at, other)| {
        let mut chars: Vec<_> = text.chars().map(String::from).collect();
        let at = at.index(chars.len());
        chars[at] = other.to_owned();
        chars.concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn the_general_parser_finds_the_same(text in prop_oneof![nearly_json(), message(), mutilated()]) {
        if let Some(found) = scanned(&text) {
            prop_assert_eq!(Some(found), expected(&text), "{}", text);
        }
    }
}
