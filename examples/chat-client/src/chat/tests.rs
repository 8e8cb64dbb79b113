//! Tests the chat against a scripted server in this process.

use futures_util::SinkExt;
use tokio::net::TcpListener;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server,
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::*;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server's behaviour on one connection.
enum Act {
    /// Answers each frame with an `ack`, but closes with a code when it gets this one.
    CloseAfter(&'static str, u16),
    /// Answers each frame with an `error`.
    Refuse,
    /// Answers nothing.
    Ignore,
}

/// Serves one connection for each act, and returns the received texts of each connection.
async fn serve(listener: TcpListener, acts: Vec<Act>) -> Vec<Vec<String>> {
    let mut heard = Vec::new();
    for act in acts {
        let (stream, _) = listener.accept().await.unwrap();
        #[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
        let protocol = |_: &server::Request, mut answer: server::Response| {
            let v1 = HeaderValue::from_static("signalbox.v1");
            answer.headers_mut().insert("Sec-WebSocket-Protocol", v1);
            Ok(answer)
        };
        let mut socket = accept_hdr_async(stream, protocol).await.unwrap();
        let welcome = json!({"type": "welcome", "payload": {"userId": "ann", "nodeId": "a"}});
        socket
            .send(Message::text(welcome.to_string()))
            .await
            .unwrap();
        let mut frames = Vec::new();
        while let Some(Ok(frame)) = socket.next().await {
            let Message::Text(text) = frame else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            let what = frame["payload"]["text"].as_str().or(frame["room"].as_str());
            let what = what.unwrap_or_default().to_owned();
            frames.push(what.clone());
            let answer = match act {
                Act::CloseAfter(last, code) if last == what => {
                    let (code, reason) = (CloseCode::from(code), "told to".into());
                    socket
                        .close(Some(CloseFrame { code, reason }))
                        .await
                        .unwrap();
                    continue;
                }
                Act::CloseAfter(..) => {
                    json!({"type": "ack", "payload": {"id": frame["id"], "status": "delivered"}})
                }
                Act::Refuse => json!({"type": "error", "payload": {
                    "id": frame["id"], "code": "blank", "message": "the text is blank", "plugin": "chat", "retryable": false
                }}),
                Act::Ignore => continue,
            };
            socket
                .send(Message::text(answer.to_string()))
                .await
                .unwrap();
        }
        heard.push(frames);
    }
    heard
}

/// Runs a chat with `lines` against `acts`. Returns its result, the texts that the server received, and the lines that
/// it showed.
async fn chat(
    lines: &[&str],
    acts: Vec<Act>,
    patience: Duration,
) -> (anyhow::Result<bool>, Vec<Vec<String>>, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let mut client = Options::user(url, "ann");
    client.backoff_min = Duration::from_millis(1);
    let settings = Settings {
        client,
        expect: 0,
        patience,
    };
    let (sender, receiver) = mpsc::channel(lines.len().max(1));
    for line in lines {
        sender.send((*line).to_owned()).await.unwrap();
    }
    drop(sender);
    let server = tokio::spawn(serve(listener, acts));
    let mut shown = Vec::new();
    let chat = Chat::new(settings, |line: &str| shown.push(line.to_owned())).unwrap();
    let ended = chat.run(receiver).await;
    let heard = tokio::time::timeout(PATIENCE, server)
        .await
        .expect("the client connected as often as it should");
    (ended, heard.unwrap(), shown)
}

#[tokio::test]
async fn lines_are_sent_answered_and_the_end_of_the_input_is_the_end() {
    let acts = vec![Act::CloseAfter("never", 0)];
    let (ended, heard, shown) = chat(&["lost", "/to bob", "one", "/me two"], acts, PATIENCE).await;
    assert!(ended.unwrap());
    assert_eq!(heard, [["one", "two"]]);
    assert_eq!(
        shown,
        [
            "connected as ann to node a",
            "whom for? /to USER or /room ROOM",
            "  1: delivered",
            "  2: delivered"
        ]
    );
}

#[tokio::test]
async fn after_a_drain_the_client_comes_back_to_its_rooms() {
    let acts = vec![Act::CloseAfter("one", 4000), Act::CloseAfter("never", 0)];
    let (ended, heard, shown) = chat(&["/join lobby", "one"], acts, PATIENCE).await;
    assert!(!ended.unwrap(), "nobody knows what became of the message");
    assert_eq!(heard, [vec!["lobby", "one"], vec!["lobby"]]);
    assert!(
        shown.contains(&"closed with 4000: told to".to_owned()),
        "{shown:?}"
    );
}

#[tokio::test]
async fn a_client_that_was_told_not_to_come_back_does_not() {
    let acts = vec![Act::CloseAfter("one", 4501)];
    let (ended, heard, _) = chat(&["/to bob", "one"], acts, PATIENCE).await;
    assert_eq!(ended.unwrap_err().to_string(), "closed with 4501: told to");
    assert_eq!(heard, [["one"]]);
}

#[tokio::test]
async fn a_refusal_or_no_answer_at_all_is_no_success() {
    for (act, patience, line) in [
        (
            Act::Refuse,
            PATIENCE,
            "! 1: blank (plugin chat): the text is blank",
        ),
        (
            Act::Ignore,
            Duration::from_millis(1),
            "gave up: 1 not answered, 0 messages came",
        ),
    ] {
        let (ended, _, shown) = chat(&["/to bob", "one"], vec![act], patience).await;
        assert!(!ended.unwrap());
        assert_eq!(shown.last().unwrap(), line);
    }
}

#[tokio::test]
async fn a_raw_frame_is_sent_with_its_fields_and_shown_with_its_id() {
    let acts = vec![Act::CloseAfter("never", 0)];
    let raw = r#"/raw {"type":"poll.vote","payload":{"text":"x"},"room":"r","id":"v1"}"#;
    let (ended, heard, shown) = chat(&[raw], acts, PATIENCE).await;
    assert!(ended.unwrap());
    assert_eq!(heard, [["x"]]);
    assert_eq!(shown.last().unwrap(), "  v1: delivered");
    let (ended, _, shown) = chat(&["/raw {"], vec![Act::Refuse], PATIENCE).await;
    assert!(!ended.unwrap());
    assert!(shown.last().unwrap().starts_with("not sent"), "{shown:?}");
}

#[tokio::test]
async fn a_script_joins_speaks_and_leaves_in_order() {
    let acts = vec![Act::CloseAfter("never", 0)];
    let lines = ["/join lobby", "hi", "/leave"];
    let (ended, heard, shown) = chat(&lines, acts, PATIENCE).await;
    assert!(ended.unwrap(), "{shown:?}");
    assert_eq!(heard, [["lobby", "hi", "lobby"]]);
}

#[tokio::test]
async fn a_first_attempt_that_fails_is_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    drop(listener);
    let settings = Settings {
        client: Options::user(url.as_str(), "ann"),
        expect: 0,
        patience: PATIENCE,
    };
    let (_sender, receiver) = mpsc::channel(1);
    let chat = Chat::new(settings, |_: &str| {}).unwrap();
    let error = chat.run(receiver).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot connect to {url}")),
        "{error}"
    );
}
