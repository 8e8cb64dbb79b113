//! Tests the parser of clients' frames, also against a parser that reads everything.

use proptest::prelude::*;

use super::*;

fn code(text: &str) -> ErrorCode {
    Envelope::parse(text).unwrap_err().code
}

#[test]
fn a_websocket_app_message_is_read() {
    let envelope =
        Envelope::parse(r#"{"type":"chat_message","payload":"hi","receiverId":"u2"}"#).unwrap();
    assert_eq!(envelope.event_type, "chat_message");
    assert_eq!(envelope.payload, r#""hi""#);
    assert_eq!(envelope.receiver.as_deref(), Some("u2"));
    assert!(envelope.room.is_none() && envelope.id.is_none());
}

#[test]
fn field_names_match_in_any_case() {
    for name in [
        "receiverId",
        "receiverID",
        "RECEIVERID",
        "receiverid",
        "ReceiverId",
    ] {
        let text = format!(r#"{{"TYPE":"a","Payload":1,"{name}":"u"}}"#);
        let envelope = Envelope::parse(&text).unwrap();
        assert_eq!(
            (envelope.receiver.as_deref(), envelope.payload),
            (Some("u"), "1")
        );
    }
}

#[test]
fn the_payload_keeps_its_bytes() {
    let payload = r#"{ "n": 12345678901234567890, "f": 1.10, "s":"\u00e4" , "a":[ ] }"#;
    let text = format!(r#"{{"payload":{payload},"type":"a"}}"#);
    assert_eq!(Envelope::parse(&text).unwrap().payload, payload);
}

#[test]
fn an_absent_payload_is_null_and_empty_names_are_absent() {
    let envelope = Envelope::parse(r#"{"type":"a","receiverId":"","room":null,"id":""}"#).unwrap();
    assert_eq!(envelope.payload, "null");
    assert!(envelope.receiver.is_none() && envelope.room.is_none() && envelope.id.is_none());
}

#[test]
fn the_last_of_two_fields_counts_and_unknown_ones_are_ignored() {
    let text = r#"{"type":"a","type":"b","senderId":[{"x":1}],"timestamp":7}"#;
    assert_eq!(Envelope::parse(text).unwrap().event_type, "b");
}

#[test]
fn bad_frames_name_their_fault() {
    for text in [
        "",
        "x",
        "[]",
        "\"a\"",
        "{",
        r#"{"type":1}"#,
        r#"{"type":"a","receiverId":5}"#,
        r#"{"type":"a"} x"#,
    ] {
        assert_eq!(code(text), ErrorCode::InvalidFrame, "{text}");
    }
    for text in [
        "{}",
        r#"{"type":""}"#,
        r#"{"type":"a b"}"#,
        r#"{"type":null}"#,
    ] {
        assert_eq!(code(text), ErrorCode::InvalidType, "{text}");
    }
    assert_eq!(
        code(r#"{"type":"a","receiverId":"u","room":"r"}"#),
        ErrorCode::InvalidReceiver
    );
    assert_eq!(
        code(&format!(
            r#"{{"type":"a","receiverId":"{}"}}"#,
            "u".repeat(256)
        )),
        ErrorCode::InvalidReceiver
    );
    assert_eq!(
        code(&format!(r#"{{"type":"a","room":"{}"}}"#, "r".repeat(256))),
        ErrorCode::InvalidRoom
    );
    assert_eq!(
        code(&format!(r#"{{"type":"a","id":"{}"}}"#, "i".repeat(65))),
        ErrorCode::InvalidId
    );
}

#[test]
fn an_error_names_the_id_if_it_could_be_read() {
    let id = |text: &str| Envelope::parse(text).unwrap_err().id;
    for text in [
        r#"{"id":"7","type":"a b"}"#,
        r#"{"id":"7","type":5}"#,
        r#"{"type":"a","payload":"\ud83d","id":"7"}"#,
        r#"{"type":"a","room":5,"id":"7"}"#,
    ] {
        assert_eq!(id(text).as_deref(), Some("7"), "{text}");
    }
    for text in [
        r#"{"id":"\ud83d","type":"a"}"#,
        r#"{"id":5,"type":"a"}"#,
        r#"{"id":"7","type":"a","payload":"\ud83d""#,
    ] {
        assert_eq!(id(text), None, "{text}");
    }
}

#[test]
fn bad_text_anywhere_in_a_frame_is_an_invalid_payload() {
    let number = "1".repeat(401);
    for text in [
        r#"{"type":"a","payload":"spam \ud83d"}"#.to_owned(),
        r#"{"type":"a","payload":{"\uDC00":1}}"#.to_owned(),
        r#"{"type":"\ud83d"}"#.to_owned(),
        r#"{"type":"a","id":"\ud83d"}"#.to_owned(),
        r#"{"type":"a","receiverId":"\ude00\ud83d"}"#.to_owned(),
        r#"{"type":"a","senderId":"\ud83d"}"#.to_owned(),
        r#"{"type":"a","whatever":["\ud83d"]}"#.to_owned(),
        r#"{"type":"a","\ud83d":1}"#.to_owned(),
        format!(r#"{{"type":"a","payload":{number}}}"#),
        format!(r#"{{"type":"a","whatever":[-{number}.5]}}"#),
    ] {
        for dialect in [Dialect::V1, Dialect::WebsocketApp] {
            let error = Envelope::parse_as(&text, dialect).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidPayload, "{text}");
        }
    }
}

#[test]
fn an_old_client_may_carry_anything_as_id_and_room() {
    let long = format!(r#""{}""#, "x".repeat(256));
    for odd in ["5", "-1e999", "true", "[1]", r#"{"a":"b"}"#, &long] {
        for (field, other) in [("id", "room"), ("room", "id")] {
            let text = format!(r#"{{"type":"a","{field}":{odd},"{other}":null,"receiverId":"u"}}"#);
            let envelope = Envelope::parse_as(&text, Dialect::WebsocketApp).unwrap();
            assert_eq!(envelope.receiver.as_deref(), Some("u"), "{text}");
            assert!(envelope.id.is_none() && envelope.room.is_none(), "{text}");
            let error = Envelope::parse(&text).unwrap_err();
            let expected = match (odd == long, field) {
                (false, _) => ErrorCode::InvalidFrame,
                (true, "id") => ErrorCode::InvalidId,
                (true, _) => ErrorCode::InvalidRoom,
            };
            assert_eq!(error.code, expected, "{text}");
        }
    }
}

#[test]
fn an_old_clients_message_with_a_receiver_is_delivered_with_any_room() {
    let text = r#"{"type":"a","receiverId":"u","room":"kitchen"}"#;
    let envelope = Envelope::parse_as(text, Dialect::WebsocketApp).unwrap();
    assert_eq!(envelope.receiver.as_deref(), Some("u"));
    assert!(envelope.room.is_none());
}

#[test]
fn an_old_client_is_held_to_the_fields_that_it_knows() {
    for text in [
        r#"{"type":5}"#,
        r#"{"type":"a","receiverId":5}"#,
        r#"{"type":"a","receiverId":["u"]}"#,
        "[]",
    ] {
        let error = Envelope::parse_as(text, Dialect::WebsocketApp).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidFrame, "{text}");
    }
}

#[test]
fn no_message_names_a_type_of_rusts() {
    for text in [
        "",
        "[]",
        "5",
        "null",
        "\"a\"",
        "{",
        "{\"a\"}",
        r#"{"type":[]}"#,
        r#"{"id":{}}"#,
        r#"{"type":"a","room":1.5}"#,
        r#"{"type":"a","receiverId":true}"#,
    ] {
        let message = Envelope::parse(text).unwrap_err().message;
        for name in ["struct", "sequence", "unit", "integer", "map", "Fields"] {
            assert!(!message.contains(name), "{message}");
        }
    }
}

#[test]
fn json_is_at_most_100_levels_deep() {
    // The frame itself is one level.
    let nested = |depth: usize| {
        format!(
            r#"{{"type":"a","payload":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert!(Envelope::parse(&nested(99)).is_ok());
    assert_eq!(code(&nested(100)), ErrorCode::TooDeep);
    assert_eq!(code(&nested(20_000)), ErrorCode::TooDeep);
    let in_a_string = format!(r#"{{"type":"a","payload":"{}\"["}}"#, "[".repeat(300));
    assert!(Envelope::parse(&in_a_string).is_ok());
}

/// Frames as clients in many languages write them, valid and invalid.
fn frames() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("type"),
        Just("TYPE"),
        Just("payload"),
        Just("receiverId"),
        Just("receiverID"),
        Just("room"),
        Just("id"),
        Just("Id"),
        Just("senderId"),
        Just("x"),
    ];
    let value = prop_oneof![
        6 => r#""[a-z]{1,8}""#,
        1 => Just(r#""\u0061\ud83d\ude00""#.to_owned()),
        1 => Just(r#""\ud83d""#.to_owned()),
        1 => Just("null".to_owned()),
        1 => Just(r#""""#.to_owned()),
        1 => "-?[0-9]{1,3}(\\.[0-9])?",
        1 => Just(r#"{ "a" : ["b", {}] }"#.to_owned()),
        1 => Just("tru".to_owned()),
    ];
    proptest::collection::vec((name, value), 0..7).prop_map(|fields| {
        let fields = fields
            .iter()
            .map(|(name, value)| format!(r#" "{name}" :{value}"#));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    })
}

/// The message of an old client according to a parser that builds everything; `None` if the frame is refused.
fn meant(frame: &str) -> Option<[Option<String>; 4]> {
    let fields: Vec<(String, serde_json::Value)> = serde_json::from_str::<InOrder>(frame).ok()?.0;
    let last = |wanted: &str| {
        let named = |(name, _): &&(String, _)| name.eq_ignore_ascii_case(wanted);
        let mut values = fields.iter().filter(named).map(|(_, value)| value);
        values.rfind(|value| !value.is_null())
    };
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let given = |text: String| (!text.is_empty()).then_some(text);
    let event_type = text(last("type")?)?;
    let receiver = match last("receiverid") {
        Some(value) => given(text(value)?),
        None => None,
    };
    let lenient = |name| last(name).and_then(text).and_then(given);
    let room = lenient("room").filter(|_| receiver.is_none());
    crate::event_type::is_valid(&event_type)
        .then(|| [Some(event_type), receiver, room, lenient("id")])
}

struct InOrder(Vec<(String, serde_json::Value)>);

impl<'de> serde::Deserialize<'de> for InOrder {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrderVisitor;
        impl<'de> serde::de::Visitor<'de> for InOrderVisitor {
            type Value = InOrder;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> Result<InOrder, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(InOrder(fields))
            }
        }
        deserializer.deserialize_map(InOrderVisitor)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_frame_parser_agrees_with_a_full_json_parser(frame in frames()) {
        let read = Envelope::parse_as(&frame, Dialect::WebsocketApp).ok().map(|envelope| {
            [
                Some(envelope.event_type.to_string()),
                envelope.receiver.map(|user| user.to_string()),
                envelope.room.map(|room| room.to_string()),
                envelope.id.map(Cow::into_owned),
            ]
        });
        prop_assert_eq!(read, meant(&frame), "{}", frame);
    }

    #[test]
    fn an_old_client_may_send_every_frame_of_v1(frame in frames()) {
        if let Ok(envelope) = Envelope::parse(&frame) {
            let old = Envelope::parse_as(&frame, Dialect::WebsocketApp).unwrap();
            prop_assert_eq!(format!("{envelope:?}"), format!("{old:?}"));
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_answered_without_a_panic(text in "\\PC*") {
        let _ = Envelope::parse(&text);
        let _ = Envelope::parse_as(&text, Dialect::WebsocketApp);
    }

    #[test]
    fn any_mutilated_frame_is_answered_without_a_panic(cut in 0usize..120, byte in any::<u8>(), at in 0usize..120) {
        let mut bytes = br#"{"type":"chat_message","payload":{"text":"\ud83d\ude00 x","n":[1,2.5e7,null]},"receiverID":"u2","id":"i"}"#.to_vec();
        let at = at.min(bytes.len() - 1);
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = Envelope::parse(text);
        }
    }

    #[test]
    fn strings_come_back_as_they_were(user in "\\PC{1,60}", payload in "\\PC{0,80}") {
        let text = serde_json::json!({"type": "a", "payload": payload, "receiverId": user}).to_string();
        let envelope = Envelope::parse(&text).unwrap();
        prop_assert_eq!(envelope.receiver.as_deref(), Some(user.as_str()));
        prop_assert_eq!(serde_json::from_str::<String>(envelope.payload).unwrap(), payload);
    }
}

#[test]
fn once_is_true_or_false_and_needs_an_id() {
    let once = |text: &str, dialect| {
        let envelope = Envelope::parse_as(text, dialect);
        envelope
            .map(|envelope| envelope.once)
            .map_err(|error| error.code)
    };
    for (text, expected) in [
        (r#"{"type":"a","id":"1","once":true}"#, true),
        (r#"{"once" : true ,"type":"a","id":"\u0031"}"#, true),
        (r#"{"type":"a","id":"1","ONCE":true,"once":null}"#, true),
        (r#"{"type":"a","id":"1","once":true,"once":false}"#, false),
        (r#"{"type":"a","once":false}"#, false),
        (r#"{"type":"a","once":null}"#, false),
        (r#"{"type":"a","id":"1"}"#, false),
    ] {
        for dialect in [Dialect::V1, Dialect::WebsocketApp] {
            assert_eq!(once(text, dialect), Ok(expected), "{text}");
        }
    }
    for text in [
        r#"{"type":"a","once":true}"#,
        r#"{"type":"a","id":"","once":true}"#,
        r#"{"type":"a","id":"1","once":1}"#,
        r#"{"type":"a","id":"1","once":"true"}"#,
        r#"{"type":"a","id":"1","once":[true]}"#,
        r#"{"type":"a","id":"1","once":"\u0074"}"#,
    ] {
        assert_eq!(
            once(text, Dialect::V1),
            Err(ErrorCode::InvalidFrame),
            "{text}"
        );
        assert_eq!(once(text, Dialect::WebsocketApp), Ok(false), "{text}");
    }
}
