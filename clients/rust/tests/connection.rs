//! Tests the client against a scripted server in this process.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use signalbox_client::{Client, Event, Events, JoinOptions, Options, State};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{Message, handshake::server, http::HeaderValue},
};

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A scripted server.
struct Server {
    listener: TcpListener,
    url: String,
}

struct Peer(WebSocketStream<TcpStream>);

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        Self { listener, url }
    }

    fn client(&self) -> (Client, Events) {
        Client::new(Options::user(&self.url, "ann")).unwrap()
    }

    /// Accepts the next connection, and welcomes it.
    async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept());
        let (stream, _) = accepted.await.unwrap().unwrap();
        #[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
        let protocol = |_: &server::Request, mut answer: server::Response| {
            let v1 = HeaderValue::from_static("signalbox.v1");
            answer.headers_mut().insert("Sec-WebSocket-Protocol", v1);
            Ok(answer)
        };
        let mut peer = Peer(accept_hdr_async(stream, protocol).await.unwrap());
        peer.send(json!({"type": "welcome", "payload": {"userId": "ann", "nodeId": "a"}}))
            .await;
        peer
    }
}

impl Peer {
    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame of the client, or the close code with which it went; 0 without one.
    async fn next(&mut self) -> Result<Value, u16> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap();
            match next {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => {
                    return Err(close.map_or(0, |close| close.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(0),
            }
        }
    }

    /// Answers the next frame, and returns it.
    async fn answer(&mut self) -> Value {
        let frame = self.next().await.unwrap();
        self.send(json!({"type": "ack", "payload": {"id": frame["id"], "status": "delivered"}}))
            .await;
        frame
    }
}

async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        let event = event.unwrap().expect("the client goes on");
        if wanted(&event) {
            return event;
        }
    }
}

fn is_state(state: State) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::State(change) if change.state == state)
}

#[tokio::test]
async fn a_closed_client_closes_cleanly_and_can_start_again_with_its_rooms() {
    let server = Server::new().await;
    let (client, mut events) = server.client();
    client.connect().await;
    client.connect().await;
    let mut peer = server.accept().await;
    let (room, frame) = tokio::join!(client.join("r", JoinOptions::default()), peer.answer());
    assert_eq!(room.unwrap().name(), "r");
    assert_eq!(frame["room"], "r");
    peer.send(json!({"type": "note"})).await;
    let ((), goodbye) = tokio::join!(client.close(), peer.next());
    assert_eq!(goodbye, Err(1000));
    let change = events.recv().await.unwrap();
    assert!(is_state(State::Closed)(&change), "{change:?}");
    assert_eq!(client.state().await, State::Closed);
    let error = client.room("r").send("t", 1).await.unwrap_err();
    assert_eq!(error.code, "closed");

    client.connect().await;
    let mut peer = server.accept().await;
    assert_eq!(peer.answer().await["type"], "join");
    let event = until(&mut events, is_state(State::Connected)).await;
    let Event::State(change) = event else {
        panic!("{event:?}")
    };
    let session = change.session.unwrap();
    assert_eq!((session.user.as_str(), session.node.as_str()), ("ann", "a"));
    client.close().await;
}

#[tokio::test]
async fn commands_that_meet_the_end_of_the_task_are_answered() {
    let server = Server::new().await;
    let (client, _events) = server.client();
    for _ in 0..50 {
        client.connect().await;
        let closing = async { tokio::join!(client.close(), client.close()) };
        let room = client.room("r");
        let sending = room.send("t", 1);
        let reconnecting = async {
            client.connect().await;
            client.close().await;
        };
        let ((..), sent, ()) = tokio::join!(closing, sending, reconnecting);
        assert_eq!(sent.unwrap_err().code, "closed");
    }
    assert_eq!(client.state().await, State::Closed);
}

#[tokio::test]
async fn the_client_closes_when_its_last_handle_is_dropped() {
    let server = Server::new().await;
    let (client, mut events) = server.client();
    client.connect().await;
    let mut peer = server.accept().await;
    until(&mut events, is_state(State::Connected)).await;
    let room = client.room("r");
    drop(client);
    let (sent, _) = tokio::join!(room.send("t", 1), peer.answer());
    assert_eq!(sent.unwrap().status, "delivered");
    drop(room);
    assert_eq!(peer.next().await, Err(1000));
    until(&mut events, is_state(State::Closed)).await;
    assert!(events.recv().await.is_none());
}

#[tokio::test]
async fn a_client_reads_no_more_while_events_wait_and_loses_none() {
    let server = Server::new().await;
    let mut options = Options::user(&server.url, "ann");
    options.events_max = 10;
    let (client, mut events) = Client::new(options).unwrap();
    client.connect().await;
    let mut peer = server.accept().await;
    let writing = tokio::spawn(async move {
        for n in 0..1_000 {
            peer.send(json!({"type": "count", "payload": n})).await;
        }
        peer
    });
    for n in 0..1_000_u64 {
        let event = until(&mut events, |event| matches!(event, Event::Message(_))).await;
        let Event::Message(message) = event else {
            panic!("{event:?}")
        };
        assert_eq!(message.decode::<u64>().unwrap(), n);
    }
    client.close().await;
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn without_a_reader_of_events_calls_continue() {
    let server = Server::new().await;
    let (client, events) = server.client();
    drop(events);
    client.connect().await;
    let mut peer = server.accept().await;
    for n in 0..2_000 {
        peer.send(json!({"type": "count", "payload": n})).await;
    }
    let room = client.room("r");
    let (sent, _) = tokio::join!(room.send("t", 1), peer.answer());
    assert!(sent.is_ok());
}

#[tokio::test]
async fn a_token_callback_that_panics_is_a_failure_like_any_other() {
    let server = Server::new().await;
    let options = Options::token_callback(&server.url, async || panic!("on purpose"));
    let (client, mut events) = Client::new(options).unwrap();
    client.connect().await;
    let event = until(&mut events, |event| matches!(event, Event::Error(_))).await;
    let Event::Error(error) = event else {
        panic!("{event:?}")
    };
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("token_failed", true)
    );
    client.close().await;
}

#[tokio::test]
async fn a_frame_over_the_limit_of_the_client_ends_the_connection() {
    let server = Server::new().await;
    let mut options = Options::user(&server.url, "ann");
    options.receive_bytes_max = 1_000;
    let (client, mut events) = Client::new(options).unwrap();
    client.connect().await;
    let mut peer = server.accept().await;
    peer.send(json!({"type": "large", "payload": "x".repeat(2_000)}))
        .await;
    let event = until(&mut events, is_state(State::Disconnected)).await;
    assert!(
        format!("{event:?}").contains("receive_bytes_max"),
        "{event:?}"
    );
    client.close().await;
}

#[test]
fn a_client_outlives_no_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, mut events) = Client::new(Options::user("ws://127.0.0.1:9/ws", "ann")).unwrap();
    runtime.block_on(client.connect());
    runtime.shutdown_timeout(PATIENCE);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let error = client.room("r").send("t", 1).await.unwrap_err();
        assert_eq!(error.code, "closed");
        client.connect().await;
        client.close().await;
        while events.recv().await.is_some() {}
    });
}

#[test]
fn options_that_cannot_be_used_are_refused() {
    for options in [
        Options::user("http://127.0.0.1/ws", "ann"),
        Options::user("no address", "ann"),
        Options::token("ws://127.0.0.1/ws", "two\nlines"),
    ] {
        assert_eq!(Client::new(options).unwrap_err().code, "invalid_options");
    }
    let secure = Client::new(Options::user("wss://127.0.0.1/ws", "ann"));
    assert_eq!(secure.is_ok(), cfg!(feature = "tls"));
}
