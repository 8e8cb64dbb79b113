//! Tests how published messages are checked and normalised.

use std::time::Duration;

use proptest::{collection, prelude::*};
use serde_json::Value;

use super::*;
use crate::outbound::Delivery;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn frame(text: &str) -> String {
    let published = normalise(text, NOW).unwrap_or_else(|error| panic!("{text}: {error}"));
    published.frame.into_owned()
}

fn reason(text: &str) -> String {
    normalise(text, NOW).expect_err(text).to_string()
}

#[test]
fn messages_of_our_nodes_are_forwarded_without_a_copy() {
    let delivery = Delivery {
        event_type: "chat_message",
        payload: r#"{"a": 1.0, "b":"\u00e4\n" }"#,
        receiver: "u\"2",
        sender: "u1",
        timestamp: NOW + Duration::from_micros(1_700_000_000_123_456),
        room: None,
        message_id: None,
    };
    for delivery in [
        delivery,
        Delivery {
            sender: "",
            message_id: Some("0f6a31c2d4e5-2a"),
            ..delivery
        },
        Delivery {
            receiver: "",
            room: Some("r\\1"),
            ..delivery
        },
        Delivery {
            receiver: "",
            room: Some("ä"),
            message_id: Some("m"),
            ..delivery
        },
        Delivery {
            receiver: "",
            ..delivery
        },
    ] {
        let frame = delivery.encode();
        let published = normalise(frame.as_str(), NOW).unwrap();
        assert!(
            matches!(published.frame, Cow::Borrowed(text) if text == frame.as_str()),
            "{}",
            frame.as_str()
        );
        let named = |name: &str| (!name.is_empty()).then_some(name.to_owned());
        let receiver = published.receiver.map(|user| user.to_string());
        assert_eq!(receiver, named(delivery.receiver));
        let room = published.room.map(|room| room.to_string());
        assert_eq!(room, named(delivery.room.unwrap_or_default()));
    }
}

#[test]
fn names_are_normalised_and_fields_come_in_their_order() {
    let expected = r#"{"type":"quiz_ready","payload":{"b":1, "a":1.50},"receiverID":"bob","senderId":"quiz","timestamp":"2026-01-31T12:00:00Z"}"#;
    for text in [
        expected,
        r#"{"payload":{"b":1, "a":1.50},"receiverId":"bob","senderID":"quiz","timestamp":"2026-01-31T12:00:00Z","type":"quiz_ready"}"#,
        r#"{"RECEIVERID":"bob","SENDERID":"quiz","TIMESTAMP":"2026-01-31T12:00:00Z","TYPE":"quiz_ready","PAYLOAD":{"b":1, "a":1.50}}"#,
        r#" {"Type" : "quiz_ready" , "Payload" : {"b":1, "a":1.50} ,"receiverid":"bob","ſenderid":"quiz","Timeſtamp":"2026-01-31T12:00:00Z" } "#,
        r#"{"receiver\u0049d":"bob","type":"quiz\u005fready","payload":{"b":1, "a":1.50},"senderId":"quiz","timestamp":"2026-01-31T12:00:00Z"}"#,
    ] {
        assert_eq!(frame(text), expected, "{text}");
    }
}

#[test]
fn missing_fields_are_added_and_unknown_ones_dropped() {
    assert_eq!(
        frame(
            r#"{"type":"news","receiverId":"bob","id":"7","priority":{"a":[1]},"offset":3,"once":true}"#
        ),
        r#"{"type":"news","payload":null,"receiverID":"bob","senderId":"","timestamp":"1970-01-01T00:00:00.000000Z"}"#
    );
    assert_eq!(
        frame(
            r#"{"type":"news","payload":null,"receiverID":null,"senderId":null,"timestamp":"","room":"r","messageId":null}"#
        ),
        r#"{"type":"news","payload":null,"receiverID":"","senderId":"","timestamp":"1970-01-01T00:00:00.000000Z","room":"r"}"#
    );
}

#[test]
fn the_last_of_two_fields_counts() {
    let text = r#"{"type":"a","receiverID":"eve","receiverId":"bob","payload":1,"Payload":2}"#;
    let published = normalise(text, NOW).unwrap();
    assert_eq!(published.receiver.as_deref(), Some("bob"));
    assert!(
        published
            .frame
            .contains(r#""payload":2,"receiverID":"bob""#)
    );
}

#[test]
fn a_message_for_a_user_names_no_room() {
    let published = normalise(r#"{"type":"a","receiverID":"u","room":"r"}"#, NOW).unwrap();
    assert_eq!(published.receiver.as_deref(), Some("u"));
    assert_eq!(published.room, None);
    assert!(!published.frame.contains("room"));
}

#[test]
fn a_type_is_there_well_spelled_and_not_reserved() {
    for text in [
        "{}",
        r#"{"type":null,"receiverID":"u"}"#,
        r#"{"type":"","receiverID":"u"}"#,
        r#"{"typ":"a","receiverID":"u"}"#,
    ] {
        assert_eq!(reason(text), "it has no `type`", "{text}");
    }
    for name in crate::event_type::BUILT_IN
        .iter()
        .chain(&["signalbox.request", "signalbox.x"])
    {
        let text = format!(r#"{{"type":"{name}","receiverID":"u"}}"#);
        assert_eq!(reason(&text), "its `type` is reserved for the server");
    }
    assert!(reason(r#"{"type":"\u0061ck","receiverID":"u"}"#).contains("reserved"));
    for name in [r#""a b""#, "5", "[]", r#"["a"]"#, "true", r#""ä""#] {
        let text = format!(r#"{{"type":{name},"receiverID":"u"}}"#);
        assert!(reason(&text).contains("1 to 64"), "{text}");
    }
}

#[test]
fn a_text_that_is_not_an_object_is_malformed() {
    for text in [
        "",
        "x",
        "5",
        "null",
        "[]",
        r#"["a",1,"u"]"#,
        r#""a""#,
        "{",
        r#"{"type":"a"} {}"#,
    ] {
        reason(text);
    }
}

#[test]
fn a_field_of_the_wrong_kind_or_too_long_is_malformed() {
    let long = format!(r#""{}""#, "x".repeat(256));
    for (field, name) in [
        ("receiverId", "receiverID"),
        ("senderID", "senderId"),
        ("room", "room"),
        ("timestamp", "timestamp"),
        ("messageid", "messageId"),
    ] {
        for value in ["5", "1e999", "true", "[]", r#"["u"]"#, r#"{"a":1}"#, &long] {
            let text = format!(r#"{{"type":"a","{field}":{value}}}"#);
            assert!(reason(&text).contains(&format!("`{name}`")), "{text}");
        }
    }
}

#[test]
fn text_that_languages_disagree_about_is_malformed() {
    let number = "9".repeat(401);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for text in [
        r#"{"type":"a","receiverID":"u","payload":"\ud83d"}"#.to_owned(),
        r#"{"type":"a","receiverID":"u","payload":{"\uDC00":1}}"#.to_owned(),
        r#"{"type":"a","receiverID":"\ud83d"}"#.to_owned(),
        r#"{"type":"a","receiverID":"u","other":"\ud83d"}"#.to_owned(),
        format!(r#"{{"type":"a","receiverID":"u","payload":{number}}}"#),
        format!(r#"{{"type":"a","receiverID":"u","payload":{deep}}}"#),
    ] {
        reason(&text);
    }
}

/// Messages as workers in many languages write them, and others.
fn worker() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("type"),
        Just("Type"),
        Just("payload"),
        Just("receiverId"),
        Just("receiverID"),
        Just("senderId"),
        Just("ſenderID"),
        Just("timestamp"),
        Just("room"),
        Just("messageId"),
        Just("id"),
        Just("priority"),
    ];
    let value = prop_oneof![
        4 => r#""[a-z\\u{e4}]{0,8}""#,
        1 => Just("null".to_owned()),
        1 => r#""(\\u00e4|\\"|\\/|\\ud83d\\ude00|\\u0000|\u{7f}){0,3}""#,
        1 => Just(r#"{ "a" : [1.50, "x"] }"#.to_owned()),
        1 => Just(" 12345678901234567890 ".to_owned()),
    ];
    let fields = collection::vec((name, value), 0..10);
    (fields, " {0,2}").prop_map(|(fields, space)| {
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| format!(r#"{space}"{name}":{value}"#))
            .collect();
        format!(
            r#"{{"type":"news",{}"receiverID":""}}"#,
            fields.join(",") + if fields.is_empty() { "" } else { "," }
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn normalising_what_was_normalised_gives_the_same_bytes(text in worker()) {
        if let Ok(first) = normalise(&text, NOW) {
            let second = normalise(&first.frame, NOW + Duration::from_secs(1)).unwrap();
            prop_assert!(matches!(second.frame, Cow::Borrowed(_)), "{}", first.frame);
            prop_assert_eq!(&second, &first);
        }
    }

    #[test]
    fn encoded_frames_are_json_with_the_fields_of_the_protocol(text in worker()) {
        if let Ok(published) = normalise(&text, NOW) {
            let value: Value = serde_json::from_str(&published.frame).unwrap();
            let receiver = published.receiver.map(|user| user.to_string()).unwrap_or_default();
            prop_assert_eq!(value["receiverID"].as_str(), Some(&*receiver));
            prop_assert!(value["senderId"].is_string() && !value["timestamp"].as_str().unwrap_or_default().is_empty());
            let known = ["type", "payload", "receiverID", "senderId", "timestamp", "room", "messageId"];
            prop_assert!(value.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())));
        }
    }

    #[test]
    fn any_text_is_answered_without_a_panic(text in "\\PC*") {
        let _ = normalise(&text, NOW);
    }
}
