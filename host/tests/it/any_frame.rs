//! Whatever a client sends within the WebSocket protocol, it keeps its connection and gets an answer.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Node, WITH_CHAT};

/// A frame, and the number of text frames that answer it: exactly this many, or at most one.
#[derive(Clone, Debug)]
struct Sent {
    frame: Frame,
    answers: Option<usize>,
}

#[derive(Clone, Debug)]
enum Frame {
    Text(String),
    Binary(Vec<u8>),
}

/// An answer. Its payload may hold numbers that no Rust type can represent, as JSON allows.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl Sent {
    fn text(text: String, answers: Option<usize>) -> Self {
        let frame = Frame::Text(text);
        Self { frame, answers }
    }
}

/// A message to the sender itself, so that it is delivered back.
fn good() -> impl Strategy<Value = String> {
    ("[a-z.]{1,10}x", any::<String>(), any::<f64>()).prop_map(|(event_type, text, number)| {
        let payload = json!({"any": text, "number": number});
        json!({"type": event_type, "payload": payload, "receiverId": "ann"}).to_string()
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("{}".to_owned()),
        Just("\"\"".to_owned()),
        Just("\"join\"".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| json!(text).to_string()),
    ];
    let fields = vec(("type|payload|receiverId|room|id|ID|x", value), 0..6).prop_map(|fields| {
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    });
    let broken =
        (good(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(text, at, with)| {
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            chars[at] = with;
            chars.into_iter().collect()
        });
    let cut = (good(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let chars: Vec<char> = text.chars().collect();
        chars[..at.index(chars.len())].iter().collect::<String>()
    });
    prop_oneof![
        good().prop_map(|text| Sent::text(text, Some(1))),
        good().prop_map(|text| Sent {
            frame: Frame::Binary(text.into_bytes()),
            answers: Some(1)
        }),
        // Without its end it is not valid JSON, so it must be refused.
        cut.prop_map(|text| Sent::text(text, Some(1))),
        fields.prop_map(|text| Sent::text(text, None)),
        broken.prop_map(|text| Sent::text(text, None)),
        any::<String>().prop_map(|text| Sent::text(text, None)),
        vec(any::<u8>(), 0..300).prop_map(|mut bytes| {
            bytes.push(0xff);
            Sent {
                frame: Frame::Binary(bytes),
                answers: Some(1),
            }
        }),
    ]
}

#[test]
fn any_frame_is_answered_or_routed_and_the_connection_stays() {
    let runtime = Runtime::new().expect("a runtime");
    let config = format!("[limits]\nmessages_per_second = 0\n{WITH_CHAT}");
    let node = runtime.block_on(Node::start(&config));
    let mut runner = TestRunner::new(Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let all_answered = runner.run(&vec(sent(), 1..8), |frames| {
        runtime.block_on(exchange(&node, &frames))
    });
    all_answered.unwrap_or_else(|error| panic!("{error}"));
}

async fn exchange(node: &Node, frames: &[Sent]) -> Result<(), TestCaseError> {
    let mut ann = node.client("ann").await;
    for sent in frames {
        ann.send_raw(match &sent.frame {
            Frame::Text(text) => Message::text(text),
            Frame::Binary(bytes) => Message::binary(bytes.clone()),
        })
        .await;
        ann.send(r#"{"type":"heartbeat","id":"the end"}"#).await;
        let mut answers = 0;
        loop {
            let text = ann.text().await;
            let answer: Answer<'_> = serde_json::from_str(&text)
                .map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
            let the_end = r#"{"id":"the end","#;
            if answer.event_type == "ack" && answer.payload.get().starts_with(the_end) {
                break;
            }
            answers += 1;
        }
        prop_assert!(answers <= 1, "{answers} answers to {sent:?}");
        let expected = sent.answers.unwrap_or(answers);
        prop_assert_eq!(answers, expected, "answers to {:?}", sent);
    }
    ann.close().await;
    Ok(())
}
