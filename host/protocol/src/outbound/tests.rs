use proptest::prelude::*;

use super::*;
use crate::{Epoch, Position, RecoveryFailure};

const DELIVERY: Delivery<'static> = Delivery {
    event_type: "chat_message",
    payload: r#"{"a": 1.0}"#,
    receiver: "u2",
    sender: "u1",
    timestamp: SystemTime::UNIX_EPOCH,
    room: None,
    message_id: None,
};

#[test]
fn a_delivery_has_the_fields_of_websocket_app_in_their_order() {
    assert_eq!(
        DELIVERY.encode().as_str(),
        r#"{"type":"chat_message","payload":{"a": 1.0},"receiverID":"u2","senderId":"u1","timestamp":"1970-01-01T00:00:00.000000Z"}"#
    );
}

#[test]
fn room_and_message_id_are_included_if_they_apply() {
    let frame = Delivery {
        room: Some("r\"1"),
        message_id: Some("m"),
        receiver: "",
        ..DELIVERY
    }
    .encode();
    assert!(
        frame
            .as_str()
            .ends_with(r#","room":"r\"1","messageId":"m"}"#),
        "{}",
        frame.as_str()
    );
}

#[test]
fn the_offset_is_the_last_field() {
    let frame = DELIVERY.encode().with_offset(1042);
    let text = frame.as_str();
    assert!(text.ends_with(r#"Z","offset":1042}"#), "{text}");
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(value["offset"], 1042);
    assert_eq!(frame.without_offset(1042), DELIVERY.encode());
    assert_eq!(frame.without_offset(42), frame, "it is another one");
}

#[test]
fn a_client_that_missed_direct_messages_gets_its_place_without_a_room() {
    let at = RoomPosition {
        position: Position {
            epoch: Epoch::parse("e1").unwrap(),
            offset: 7,
        },
        recovery: Some(Err(RecoveryFailure::Expired)),
    };
    assert_eq!(
        user_position(&at).as_str(),
        r#"{"type":"joined","payload":{"user":{"epoch":"e1","offset":7,"recovered":false,"reason":"expired"}}}"#
    );
}

#[test]
fn joined_tells_the_place_in_a_history() {
    assert_eq!(
        joined("r", None).as_str(),
        r#"{"type":"joined","payload":{"room":"r"}}"#
    );
    let at = RoomPosition {
        position: Position {
            epoch: Epoch::random(7),
            offset: 0,
        },
        recovery: None,
    };
    assert_eq!(
        joined("r", Some(&at)).as_str(),
        r#"{"type":"joined","payload":{"room":"r","epoch":"7","offset":0}}"#
    );
    assert_eq!(
        left("r", None).as_str(),
        r#"{"type":"left","payload":{"room":"r"}}"#
    );
    assert_eq!(
        left("r", Some("expired")).as_str(),
        r#"{"type":"left","payload":{"room":"r","reason":"expired"}}"#
    );
}

#[test]
fn ack_and_error_are_spelled_as_documented() {
    assert_eq!(
        AckPayload::new("7", "m-1", AckStatus::Offline)
            .encode()
            .as_str(),
        r#"{"type":"ack","payload":{"id":"7","messageId":"m-1","status":"offline"}}"#
    );
    let seen_by = SeenBy {
        name: "chat",
        version: Some("1.2.3"),
        sha256: "0123456789ab",
    };
    assert_eq!(
        AckPayload {
            room: Some(&RoomPosition {
                position: Position {
                    epoch: Epoch::random(7),
                    offset: 3,
                },
                recovery: Some(Ok(2)),
            }),
            plugins: Some(&[seen_by]),
            ..AckPayload::new("7", "m-1", AckStatus::Handled)
        }
        .encode()
        .as_str(),
        r#"{"type":"ack","payload":{"id":"7","messageId":"m-1","status":"handled","room":{"epoch":"7","offset":3,"recovered":true,"count":2},"plugins":[{"name":"chat","version":"1.2.3","sha256":"0123456789ab"}]}}"#
    );
    assert_eq!(
        ErrorPayload::new(None, ErrorCode::RateLimited, "slow down")
            .encode()
            .as_str(),
        r#"{"type":"error","payload":{"code":"rate_limited","message":"slow down","retryable":true}}"#
    );
}

proptest! {
    #[test]
    fn any_names_make_valid_json(user in "\\PC{0,40}", room in "\\PC{0,40}", control in any::<char>()) {
        let sender = format!("{control}{user}");
        let frame = Delivery { sender: &sender, receiver: &user, room: Some(&room), ..DELIVERY }.encode();
        let value: serde_json::Value = serde_json::from_str(frame.as_str()).unwrap();
        prop_assert_eq!(value["senderId"].as_str(), Some(sender.as_str()));
        prop_assert_eq!(value["room"].as_str(), Some(room.as_str()));
    }
}

#[test]
fn an_answer_that_is_repeated_says_so() {
    let ack = AckPayload::new("7", "m-1", AckStatus::Delivered).encode();
    assert_eq!(
        Frame::duplicate(ack.as_str()).as_str(),
        r#"{"type":"ack","payload":{"id":"7","messageId":"m-1","status":"delivered","duplicate":true}}"#
    );
    let error = ErrorPayload::new(Some("7"), ErrorCode::NotInRoom, "}}").encode();
    assert_eq!(
        Frame::duplicate(error.as_str()).as_str(),
        r#"{"type":"error","payload":{"id":"7","code":"not_in_room","message":"}}","retryable":false,"duplicate":true}}"#
    );
}
