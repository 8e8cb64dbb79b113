//! Messages that are handled once, to rooms and users with a history, although Redis answers too late.

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

use crate::{
    harness::{Answer, Endpoint},
    once::{API, KEY, post},
    redis::{Server, until},
    redis_nodes::{Nodes, Peer},
};

const HISTORIES: &str = "[users]\nhistory = { size = 100, time = \"5m\" }\n\
    [[rooms]]\nmatch = \"chat:*\"\nhistory = { size = 100, time = \"5m\" }\n";

const ROOM: &str = "chat:1";

/// For a machine that is busier than a server should be.
const PATIENT: &str = "command_timeout = \"2s\"";

/// Forwards connections to Redis, and can hold the answers of one of them back.
struct LateAnswers {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// The answers of the next connection that sends this text are held.
    trigger: Option<String>,
    /// The number of the connection whose answers are held.
    held: Option<usize>,
}

impl LateAnswers {
    async fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(watch::Sender::new(State::default()));
        let (shared, port) = (state.clone(), server.port());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (node, _) = listener.accept().await.expect("a connection");
                let Ok(redis) = TcpStream::connect(("127.0.0.1", port)).await else {
                    return;
                };
                let (from_redis, to_redis) = redis.into_split();
                let (from_node, to_node) = node.into_split();
                connections.spawn(requests(from_node, to_redis, shared.clone(), number));
                connections.spawn(answers(from_redis, to_node, shared.subscribe(), number));
            }
        });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Holds the answers of the connection that sends `text` next, beginning with the answer to that.
    fn hold_after(&self, text: &str) {
        self.state
            .send_modify(|state| state.trigger = Some(text.to_owned()));
    }

    fn release(&self) {
        let held = self.state.send_replace(State::default());
        assert!(held.held.is_some(), "nothing was held");
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<watch::Sender<State>>,
    number: usize,
) {
    let mut seen = Vec::new();
    let mut part = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = from.read(&mut part).await {
        seen.extend_from_slice(&part[..bytes]);
        let text = String::from_utf8_lossy(&seen);
        state.send_if_modified(|state| {
            let is_it = |trigger: &mut String| text.contains(trigger.as_str());
            let is_found = state.trigger.take_if(is_it).is_some();
            if is_found {
                state.held = Some(number);
            }
            is_found
        });
        // A text may be spread over two parts.
        seen.drain(..seen.len().saturating_sub(64));
        if to.write_all(&part[..bytes]).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    number: usize,
) {
    let mut part = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = from.read(&mut part).await {
        let is_free = |state: &State| state.held != Some(number);
        if state.wait_for(is_free).await.is_err() {
            return;
        }
        if to.write_all(&part[..bytes]).await.is_err() {
            return;
        }
    }
}

/// The payloads of the messages that are stored at `log`, with their IDs.
async fn stored(server: &Server, log: &str) -> Vec<(Value, Value)> {
    let entries: Vec<(String, Vec<String>)> = server.command(&["XRANGE", log, "-", "+"]).await;
    let message = |(_, fields): (String, Vec<String>)| {
        let message: Value = serde_json::from_str(&fields[1]).expect("a message");
        (message["payload"].clone(), message["messageId"].clone())
    };
    entries.into_iter().map(message).collect()
}

fn count(stored: &[(Value, Value)], payload: &str) -> usize {
    stored.iter().filter(|(found, _)| found == payload).count()
}

/// Sends `message`, and returns the answer.
async fn answer(peer: &mut Peer, message: &Value) -> Value {
    peer.send_json(message).await;
    loop {
        let frame = peer.delivery().await;
        if frame["payload"]["id"] == message["id"] {
            return frame;
        }
    }
}

/// The next message that is delivered to `peer`.
async fn message_to(peer: &mut Peer) -> Value {
    loop {
        let frame = peer.delivery().await;
        if frame["type"] == "x" {
            return frame;
        }
    }
}

struct Setting {
    cluster: Nodes,
    redis: LateAnswers,
    server: Server,
}

impl Setting {
    /// Two nodes, and a Redis that knows the scripts.
    async fn start() -> Self {
        let server = Server::start().await;
        let redis = LateAnswers::of(&server).await;
        let config = format!("{PATIENT}\n{API}{HISTORIES}");
        let cluster = Nodes::start(2, &redis.url(), &config).await;
        for (number, to) in ["receiverId", "room"].iter().enumerate() {
            for name in [Some(number.to_string()), None] {
                let mut message = json!({"type": "x", "payload": "warm-up"});
                message[to] = json!("chat:other");
                let node = &cluster.nodes[0];
                until("the message is accepted", async || {
                    let answer = match &name {
                        Some(name) => post(node, "/api/messages", KEY, name, &message).await,
                        None => plain(node, &message).await,
                    };
                    (answer.status == 200).then_some(())
                })
                .await;
            }
        }
        Self {
            cluster,
            redis,
            server,
        }
    }
}

/// Sends `message` without a key.
async fn plain(node: &Endpoint, message: &Value) -> Answer {
    node.post("/api/messages", KEY, &[], &message.to_string())
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backends_message_whose_append_was_answered_too_late_is_stored_once_if_it_is_repeated() {
    let setting = Setting::start().await;
    let nodes = &setting.cluster.nodes;
    let mut members = Vec::new();
    for (node, user) in nodes.iter().zip(["ann", "bob"]) {
        let mut member = Peer::connect(node, user).await;
        member.join(ROOM).await;
        members.push(member);
    }
    let cases = [
        ("room", ROOM, "room_history:{chat:1}:log"),
        ("receiverId", "bob", "user_history:{bob}:log"),
    ];
    for (number, (to, receiver, log)) in cases.into_iter().enumerate() {
        let (payload, name) = (format!("late-{number}"), format!("key-{number}"));
        let mut message = json!({"type": "x", "payload": payload});
        message[to] = json!(receiver);
        setting.redis.hold_after(&payload);
        let late = post(&nodes[0], "/api/messages", KEY, &name, &message).await;
        assert_eq!(
            (late.status, late.error_code().as_str()),
            (503, "unavailable")
        );
        setting.redis.release();
        // The first time on the same node, and then on another one.
        let sent = until("the repetition is handled", async || {
            let answer = post(&nodes[number], "/api/messages", KEY, &name, &message).await;
            (answer.status == 200).then_some(answer)
        })
        .await;
        let sent: Value = serde_json::from_str(&sent.body).expect("JSON");
        assert!(
            ["delivered", "kept"].contains(&sent["status"].as_str().expect("a status")),
            "{sent}"
        );
        let end = json!("end");
        message["payload"] = end.clone();
        until("the last message is sent", async || {
            (plain(&nodes[1], &message).await.status == 200).then_some(())
        })
        .await;
        let stored = stored(&setting.server, log).await;
        assert_eq!(stored[0], (json!(payload), sent["messageId"].clone()));
        assert_eq!(count(&stored, &payload), 1, "{stored:?}");
        for member in &mut members {
            if to == "receiverId" && member.user != receiver {
                continue;
            }
            let first = message_to(member).await;
            assert_eq!(
                (&first["payload"], &first["messageId"], &first["offset"]),
                (&json!(payload), &sent["messageId"], &json!(1))
            );
            assert_eq!(message_to(member).await["payload"], end);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_message_whose_append_was_answered_too_late_is_stored_once_if_it_has_once() {
    let setting = Setting::start().await;
    let nodes = &setting.cluster.nodes;
    let mut bob = Peer::connect(&nodes[1], "bob").await;
    bob.join(ROOM).await;
    let mut ann = Peer::connect(&nodes[0], "ann").await;
    ann.join(ROOM).await;
    for (number, once) in [true, false].into_iter().enumerate() {
        let payload = format!("late-{number}");
        let message = json!({
            "type": "x", "payload": payload, "room": ROOM, "id": payload, "once": once,
        });
        setting.redis.hold_after(&payload);
        let late = answer(&mut ann, &message).await;
        assert_eq!(late["payload"]["code"], "unavailable", "{late}");
        assert_eq!(late["payload"]["retryable"], true, "{late}");
        setting.redis.release();
        let sent = until("the repetition is handled", async || {
            let answer = answer(&mut ann, &message).await;
            (answer["type"] == "ack").then_some(answer)
        })
        .await;
        let stored = stored(&setting.server, "room_history:{chat:1}:log").await;
        let times = count(&stored, &payload);
        assert!(if once { times == 1 } else { times >= 2 }, "{stored:?}");
        for _ in 0..times {
            let got = message_to(&mut bob).await;
            assert_eq!(got["payload"], payload);
            if once {
                assert_eq!(got["messageId"], sent["payload"]["messageId"]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_repetition_of_a_batch_whose_answer_was_lost_stores_each_of_its_messages_once() {
    let server = Server::start().await;
    let config = format!("{PATIENT}\n{API}{HISTORIES}");
    let Nodes { nodes } = Nodes::start(1, &server.url(), &config).await;
    let message = |n: u64| json!({"type": "x", "payload": n, "room": ROOM});
    let list = json!({"type": "x", "payload": 3, "rooms": [ROOM, "chat:2"]});
    let batch = json!({"messages": [message(1), message(1), message(2), list]});
    let call = async || {
        let answer = post(&nodes[0], "/api/batch", KEY, "k", &batch).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let first = call().await;
    let claims: Vec<String> = server.command(&["KEYS", "once:*"]).await;
    assert_eq!(claims.len(), 1, "{claims:?}");
    let forget = ["DEL", claims[0].as_str()];
    let _: u64 = server.command(&forget).await;
    let ids = |answer: &str| {
        let ids = answer.split("\"messageId\":\"").skip(1);
        let ids = ids.map(|rest| rest.split('"').next().map(str::to_owned));
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&call().await), ids(&first));
    let payloads = async |log| {
        let stored = stored(&server, log).await.into_iter();
        stored.map(|(payload, _)| payload).collect::<Vec<_>>()
    };
    let log = "room_history:{chat:1}:log";
    assert_eq!(payloads(log).await, [1, 1, 2, 3]);
    assert_eq!(payloads("room_history:{chat:2}:log").await, [3]);
    // Another call with the same key, after the first one counts as failed, is another message.
    let _: u64 = server.command(&forget).await;
    let other = json!({"messages": [message(4)]});
    let answer = post(&nodes[0], "/api/batch", KEY, "k", &other).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(payloads(log).await, [1, 1, 2, 3, 4]);
}
