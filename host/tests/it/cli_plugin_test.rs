//! `signalbox plugin test`: recorded messages, without a server.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    guests::{component, stamped},
    harness::folder,
    process::{Finished, run},
};

/// Runs `cases` through `plugin`, which is the chat plugin or one of these files.
async fn tested(files: &[(&str, &[u8])], plugin: &str, cases: &Value, more: &[&str]) -> Finished {
    let cases = cases.to_string();
    let files = [files, &[("cases.json", cases.as_bytes())]].concat();
    let arguments = ["plugin", "test", plugin, "--events", "cases.json"];
    run(folder(&files).path(), &[&arguments, more].concat(), &[]).await
}

#[tokio::test]
async fn the_chat_plugin_passes_its_cases() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/chat/cases.json");
    let dir = folder(&[]);
    let arguments = [
        "plugin",
        "test",
        "chat.wasm",
        "--events",
        cases.to_str().unwrap(),
    ];
    let finished = run(dir.path(), &arguments, &[]).await;
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{}",
        finished.stdout
    );
    assert!(
        finished.stdout.ends_with(" cases, 0 failed\n"),
        "{}",
        finished.stdout
    );
    assert!(finished.stdout.lines().count() > 5, "{}", finished.stdout);
}

#[tokio::test]
async fn requests_members_and_the_rooms_that_a_plugin_reads_are_cases_too() {
    let ask = |payload: Value| json!({"type": "ask.it", "payload": payload});
    let read = ask(json!({"calls": [
        {"room_count": "café"}, {"room_members": "café"}, {"room_history": ["café", null, 5]},
        {"room_count": "x"}, {"room_members": "x"}, {"room_history": ["x", null, 1]},
    ]}));
    let found = json!([
        {"ok": 3}, {"ok": [{"user": "ann", "connections": 2, "info": "{\"n\":1}"}]},
        {"ok": [{"offset": 7, "type": "a", "sender": "ann", "payload": "1", "timestamp": 0}]},
        {"ok": 0}, {"error": "switched-off"}, {"error": "switched-off"},
    ]);
    let room = json!({
        "count": 3, "members": [{"user": "ann", "connections": 2, "info": {"n": 1}}],
        "history": [{"offset": 7, "type": "a", "sender": "ann", "payload": 1}],
    });
    let acting = ask(json!({"data": [1], "actions": [{"join": "r"}]}));
    let member = json!({"room": "café", "user": "zoë", "connections": 1});
    let told = |change: &str| {
        json!({
            "change": change, "user": "zoë", "room": "café", "connections": 1, "claims": {},
        })
    };
    let informed =
        |change: &str| json!([{"announce": {"receiver": "eve", "payload": told(change)}}]);
    let count = ask(json!({"calls": [{"room_count": "x"}]}));
    let cases = json!({"config": {"watcher": "eve"}, "rooms": {"café": room}, "cases": [
        {"name": "data", "message": acting, "expect": {"replied": {"data": [1]}}},
        {"name": "actions", "message": acting, "expect": {"replied": {"data": [1], "actions": [{"join": "r"}]}}},
        {"name": "refusal", "message": ask(json!({"refuse": "no"})), "expect": {"rejected": {"code": "no"}}},
        {"name": "no JSON", "message": ask(json!({"raw": "{"})), "expect": {"failed": {"kind": "output"}}},
        {"name": "rooms", "message": read, "expect": {"replied": {"data": found}}},
        {"name": "its own rooms", "rooms": {"x": {"count": 1}}, "message": count,
            "expect": {"replied": {"data": [{"ok": 1}]}}},
        {"name": "joined", "joined": member, "expect": {"actions": informed("joined")}},
        {"name": "left", "left": member, "expect": {"actions": informed("left")}},
    ]});
    let files: [(&str, &[u8]); 1] = [("concierge.wasm", &component("concierge"))];
    let finished = tested(&files, "concierge.wasm", &cases, &[]).await;
    assert!(
        finished.stdout.ends_with("8 cases, 0 failed\n"),
        "{}",
        finished.stdout
    );
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let wrong = json!({"config": {"clumsy": true}, "cases": [
        {"name": "data", "message": acting, "expect": {"replied": {"data": [1, 2]}}},
        {"name": "members", "joined": member, "expect": {"actions": []}},
    ]});
    let finished = tested(&files, "concierge.wasm", &wrong, &[]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), ""));
    for part in [
        "replied.data[1]: expected 2, found nothing",
        "\"kind\":\"trap\"",
    ] {
        assert!(finished.stdout.contains(part), "{}", finished.stdout);
    }
}

#[tokio::test]
async fn differences_from_the_expectation_are_shown_by_field_and_exit_with_1() {
    let message =
        json!({"type": "chat_message", "payload": {"text": " hi ", "n": 1}, "receiver": "bob"});
    let cases = json!({"cases": [
        {"name": "right", "message": message, "expect": {"delivered": {"receiver": "bob"}}},
        {"name": "another text", "message": message,
            "expect": {"delivered": {"payload": {"text": "ho", "n": 1}, "room": "lobby"}}},
        {"name": "another outcome", "message": message, "expect": {"rejected": {"code": "blank"}}},
        {"name": "not changed", "message": message, "expect": {"delivered": "unchanged"}},
    ]});
    let finished = tested(&[], "chat.wasm", &cases, &[]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), ""));
    let expected = "\
ok    right
FAIL  another text
        delivered.payload.text: expected \"ho\", found \"hi\"
        delivered.room: expected \"lobby\", found nothing
FAIL  another outcome
        expected {\"rejected\":{\"code\":\"blank\"}}
        found    {\"delivered\":{\"payload\":{\"n\":1,\"text\":\"hi\"},\"receiver\":\"bob\",\"type\":\"chat_message\"}}
FAIL  not changed
        delivered.payload.text: expected \" hi \", found \"hi\"
4 cases, 3 failed
";
    assert_eq!(finished.stdout, expected);
    let finished = tested(&[], "chat.wasm", &cases, &["--json"]).await;
    assert_eq!(finished.code, Some(1));
    let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&json!(1), &json!(3))
    );
    let second = &report["cases"][1];
    assert_eq!(
        (&second["name"], &second["passed"]),
        (&json!("another text"), &json!(false))
    );
    assert_eq!(
        second["differences"][0],
        json!({"path": "delivered.payload.text", "expected": "ho", "found": "hi"})
    );
}

#[tokio::test]
async fn every_outcome_can_be_expected() {
    let cases = json!({
        "config": {"connected": [{"join": "hall"}], "banned": ["eve"], "closed": ["attic"]},
        "cases": [
            {"name": "actions", "message": {"type": "follower.do", "payload": [
                "deliver",
                {"send": {"type": "a", "to": {"user": "bob"}, "payload": 1}},
                {"announce": {"type": "b", "to": "everyone"}},
                {"send": {"type": "c", "to": "sender"}},
                {"join": "r"}, {"leave": "r"}, {"disconnect": [4501, "bye"]},
            ], "room": "lobby"}, "expect": {"actions": [
                {"deliver": {"type": "follower.do", "room": "lobby"}},
                {"send": {"type": "a", "receiver": "bob", "payload": 1}},
                {"announce": {"type": "b", "everyone": true, "payload": null}},
                {"send": {"type": "c", "to_sender": true}},
                {"join": "r"}, {"leave": "r"}, {"disconnect": {"code": 4501, "reason": "bye"}},
            ]}},
            {"name": "the client is the sender", "message": {"type": "follower.call", "payload": ["context"],
                "sender": "cleo", "claims": {"role": "admin"}},
                "expect": {"actions": [{"send": {"type": "results"}}]}},
            {"name": "a backend has no client", "message": {"type": "follower.call", "payload": [{"get": "k"}],
                "backend": true}, "expect": {"actions": [{"send": {"payload": [{"ok": null}]}}]}},
            {"name": "the store lasts from case to case", "message": {"type": "follower.call",
                "payload": [{"increment": ["k", 2, null]}]},
                "expect": {"actions": [{"send": {"payload": [{"ok": 2}]}}]}},
            {"name": "as said", "message": {"type": "follower.call", "payload": [{"increment": ["k", 3, null]}]},
                "expect": {"actions": [{"send": {"payload": [{"ok": 5}]}}]}},
            {"name": "a connection", "connect": {}, "expect": {"actions": [{"join": "hall"}]}},
            {"name": "a refused one", "connect": {"user": "eve"}, "expect": {"rejected": {"code": "banned"}}},
            {"name": "a room", "join": {"room": "lobby"}, "expect": {"accepted": true}},
            {"name": "a closed one", "join": {"room": "attic", "user": "bob"},
                "expect": {"rejected": {"code": "closed", "reason": "bob may not be in attic"}}},
            {"name": "nobody", "message": {"type": "other"}, "expect": {"no_receiver": {"type": "other"}}},
        ],
    });
    let files: [(&str, &[u8]); 1] = [("follower.wasm", &component("follower"))];
    let finished = tested(&files, "follower.wasm", &cases, &[]).await;
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{}",
        finished.stdout
    );

    let cases = json!({"cases": [
        {"name": "a trap", "message": {"type": "hostile.panic"}, "expect": {"failed": {"kind": "trap"}}},
        {"name": "an illegal answer", "message": {"type": "hostile.room"}, "expect": {"failed": {"kind": "output"}}},
        {"name": "and on it goes", "message": {"type": "hostile.done"}, "expect": {"actions": [{"send": {}}]}},
    ]});
    let files: [(&str, &[u8]); 1] = [("hostile.wasm", &component("hostile"))];
    let finished = tested(&files, "hostile.wasm", &cases, &[]).await;
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{}",
        finished.stdout
    );

    let cases = json!({"config": {"name": "x"}, "cases": [
        {"name": "dropped", "message": {"type": "a", "payload": {"drop": "x"}}, "expect": {"dropped": true}},
    ]});
    let files: [(&str, &[u8]); 1] = [("stamp.wasm", &stamped("1"))];
    let finished = tested(&files, "stamp.wasm", &cases, &[]).await;
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{}",
        finished.stdout
    );
}

#[tokio::test]
async fn an_untestable_component_exits_with_2() {
    let case = json!({"name": "a", "message": {"type": "a"}, "expect": {"dropped": true}});
    let cases = json!({"config": {"max_text_chars": 0}, "cases": [case]});
    let refused = tested(&[], "chat.wasm", &cases, &[]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(
        refused.stderr.contains("max_text_chars is 0"),
        "{}",
        refused.stderr
    );
    // A configuration on the command line takes precedence.
    let other = tested(&[], "chat.wasm", &cases, &["--config-text", "{}"]).await;
    assert_eq!(other.code, Some(1), "{}", other.stderr);
    for (cases, words) in [
        (json!({"cases": []}), "empty"),
        (
            json!({"cases": [{"name": "a", "expect": {"dropped": true}}]}),
            "case \"a\"",
        ),
        (json!([]), "cases.json"),
    ] {
        let wrong = tested(&[], "chat.wasm", &cases, &[]).await;
        assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""));
        assert!(wrong.stderr.contains(words), "{}", wrong.stderr);
    }
}
