use signalbox_plugin::Destination;

use super::*;

fn chat(config: &str) -> Chat {
    Chat::init(config).unwrap()
}

fn message(event_type: &str, payload: &str) -> Message {
    Message {
        id: "m".into(),
        event_type: event_type.into(),
        sender: "ann".into(),
        destination: Some(Destination::User("bob".into())),
        payload: payload.into(),
        timestamp: 0,
    }
}

fn refusal(config: &str, payload: &str) -> Option<String> {
    chat(config)
        .validate(&message("chat_message", payload))
        .err()
        .map(|rejection| rejection.code)
}

fn cleaned(config: &str, payload: &str) -> Option<String> {
    match chat(config)
        .transform(&message("chat_message", payload))
        .unwrap()
    {
        Outcome::Changed(draft) => Some(draft.payload),
        Outcome::Unchanged => None,
        Outcome::Dropped => panic!("chat drops nothing"),
    }
}

#[test]
fn any_json_passes_that_has_no_text() {
    for payload in [
        "null",
        "1.50",
        "[1]",
        "{}",
        r#"{"text":7}"#,
        r#"{"a":{"text":""}}"#,
    ] {
        assert_eq!(
            (refusal("{}", payload), cleaned("{}", payload)),
            (None, None),
            "{payload}"
        );
    }
}

#[test]
fn a_text_is_neither_blank_nor_too_long() {
    let limit = r#"{"max_text_chars":3}"#;
    assert_eq!(refusal(limit, r#"" \t\n""#).as_deref(), Some("blank"));
    assert_eq!(refusal(limit, r#"{"text":""}"#).as_deref(), Some("blank"));
    assert_eq!(refusal(limit, r#""äöü""#), None);
    assert_eq!(
        refusal(limit, r#""\ud83d\ude00\ud83d\ude00\ud83d\ude00""#),
        None
    );
    assert_eq!(refusal(limit, r#""abcd""#).as_deref(), Some("too_long"));
}

#[test]
fn a_clean_text_is_left_alone_and_an_unclean_one_is_cleaned() {
    assert_eq!(cleaned("{}", r#""hi""#), None);
    assert_eq!(cleaned("{}", r#""a\nb\tc""#), None);
    assert_eq!(
        cleaned("{}", r#""  hi \u0000\u0007you ""#).as_deref(),
        Some(r#""hi you""#)
    );
    assert_eq!(cleaned("{}", r#""שלום 👩‍👩‍👧 é""#), None);
}

#[test]
fn every_other_byte_of_an_object_stays() {
    let payload = r#"{ "n": 12345678901234567890, "f":1.10, "text" : " hi" , "o":{"text":" x"} }"#;
    let expected = r#"{ "n": 12345678901234567890, "f":1.10, "text" : "hi" , "o":{"text":" x"} }"#;
    assert_eq!(cleaned("{}", payload).as_deref(), Some(expected));
}

#[test]
fn a_payload_that_cannot_be_read_in_one_way_alone_is_refused() {
    let words = r#"{"blocked_words":["spam"],"blocked_words_action":"refuse"}"#;
    for config in ["{}", words] {
        for payload in [
            r#""spam \ud83d""#,
            r#"{"text":"spam \ud83d"}"#,
            r#"{"text":"hi","more":"\ude00"}"#,
            r#"["\ud83d"]"#,
            r#"{"text":" a","text":" b"}"#,
            r#"{"text":"spam","\u0074ext":"hi"}"#,
            r#"{"text":"a"#,
            r#""a"#,
            r#""a" "b""#,
            "\"a\nb\"",
            "",
            "[1",
            "nul",
        ] {
            let code = refusal(config, payload);
            assert_eq!(code.as_deref(), Some("invalid_payload"), "{payload}");
            let message = message("chat_message", payload);
            assert!(chat(config).transform(&message).is_err(), "{payload}");
            assert!(chat(config).screen(&message).is_err(), "{payload}");
        }
    }
}

#[test]
fn blocked_words_are_found_wherever_a_client_puts_them() {
    let refuse = r#"{"blocked_words":["spam"],"blocked_words_action":"refuse"}"#;
    let mask = r#"{"blocked_words":["spam"]}"#;
    for (payload, masked) in [
        (r#"["spam"]"#, r#"["****"]"#),
        (r#"{"body":"so Spam!"}"#, r#"{"body":"so ****!"}"#),
        (
            r#"{"text":" hi ","o":{"a":[1,{"b":"spam"}]}}"#,
            r#"{"text":"hi","o":{"a":[1,{"b":"****"}]}}"#,
        ),
        (r#"{"text":["spam"]}"#, r#"{"text":["****"]}"#),
        (r#"{ "text" : "sp\u0061m" }"#, r#"{ "text" : "****" }"#),
        (
            r#"{"a":"\"spam\"","n":1.50}"#,
            r#"{"a":"\"****\"","n":1.50}"#,
        ),
    ] {
        assert_eq!(
            refusal(refuse, payload).as_deref(),
            Some("blocked_word"),
            "{payload}"
        );
        assert_eq!(refusal(mask, payload), None, "{payload}");
        assert_eq!(cleaned(mask, payload).as_deref(), Some(masked));
    }
    for clean in ["7", r#"{"spam":1}"#, r#"{"a":"spammer"}"#, r#"[null,"hi"]"#] {
        assert_eq!(refusal(refuse, clean), None, "{clean}");
        assert_eq!(cleaned(mask, clean), None, "{clean}");
    }
}

#[test]
fn blocked_words_are_masked_or_refused_as_whole_words_in_any_case() {
    let mask = r#"{"blocked_words":["darn","ÄRGER"]}"#;
    assert_eq!(
        cleaned(mask, r#""Darn, ärger! darned""#).as_deref(),
        Some(r#""****, *****! darned""#)
    );
    assert_eq!(refusal(mask, r#""darn""#), None);
    let refuse = r#"{"blocked_words":["darn"],"blocked_words_action":"refuse"}"#;
    assert_eq!(
        refusal(refuse, r#""oh DARN""#).as_deref(),
        Some("blocked_word")
    );
}

#[test]
fn both_in_one_call_answer_as_one_after_the_other() {
    let chat = chat(r#"{"max_text_chars":9,"blocked_words":["darn"]}"#);
    for event_type in ["chat_message", "chat.read", "other"] {
        for payload in [
            r#""hi""#,
            r#"{"text":" Darn "}"#,
            r#""""#,
            r#""much too long""#,
            "7",
        ] {
            let message = message(event_type, payload);
            let in_turn = chat
                .validate(&message)
                .and_then(|()| chat.transform(&message));
            assert_eq!(chat.screen(&message), in_turn, "{event_type} {payload}");
        }
    }
}

#[test]
fn a_wrong_config_is_refused_with_its_key() {
    for (config, key) in [
        (r#"{"max_text_char":1}"#, "max_text_char"),
        (r#"{"max_text_chars":0}"#, "max_text_chars"),
        (r#"{"max_text_chars":"x"}"#, "invalid type"),
        (r#"{"blocked_words":["two words"]}"#, "two words"),
        (r#"{"blocked_words_action":"burn"}"#, "burn"),
    ] {
        let error = Chat::init(config).err().unwrap();
        assert!(error.contains(key), "{config}: {error}");
    }
    chat("").self_test().unwrap();
}

#[test]
fn typing_and_read_are_handed_on_and_checked() {
    let handle = |event_type: &str, payload: &str| chat("").handle(&message(event_type, payload));
    assert_eq!(
        handle("chat.typing", r#"{"typing":true}"#),
        Ok(vec![Action::Deliver])
    );
    assert_eq!(handle("chat.typing", "null"), Ok(vec![Action::Deliver]));
    assert!(handle("chat.typing", r#"{"typing":"x"}"#).is_err());
    assert_eq!(
        handle("chat.read", r#"{"messageId":"m1"}"#),
        Ok(vec![Action::Deliver])
    );
    assert!(
        handle("chat.read", r#"{"messageId":""}"#).is_err() && handle("chat.read", "null").is_err()
    );
}

#[test]
fn me_becomes_a_chat_message() {
    let actions = chat("")
        .handle(&message("chat.me", r#"{"text":" waves "}"#))
        .unwrap();
    let [Action::Send(draft)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (draft.event_type.as_str(), &draft.destination),
        ("chat_message", &Some(Destination::User("bob".into())))
    );
    let payload: serde_json::Value = serde_json::from_str(&draft.payload).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({"text": "* ann waves", "me": true})
    );
    assert!(chat("").handle(&message("chat.me", r#"" ""#)).is_err());
}

#[test]
fn the_change_that_the_tutorial_shows_fits_the_source() {
    let tutorial = include_str!("../../../docs/tutorial.md");
    let (_, rest) = tutorial.split_once("```diff\n").expect("a change");
    let (diff, _) = rest.split_once("```").expect("its end");
    let before: String = diff
        .lines()
        .filter_map(|line| line.strip_prefix(' '))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(include_str!("lib.rs").contains(&before), "{before}");
    assert!(diff.lines().any(|line| line.starts_with('+')));
}
