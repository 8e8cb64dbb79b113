//! Several nodes that share one Redis, and clients that record every frame they receive.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    future::join_all,
    stream::{self, SplitSink, SplitStream},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message},
};
use tracing::info;

use crate::{
    harness::{Endpoint, Node, PATIENCE},
    redis::until,
};

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A line of `[redis]` with which nodes soon notice that Redis does not answer, and take a busy machine for no outage.
pub(crate) const PROMPT: &str = "command_timeout = \"2s\"\n";

/// A line of `[redis]` for a machine that is busier than a server should be, unless `lines` have another timeout.
pub(crate) fn patience(lines: &str) -> &'static str {
    if lines.contains("command_timeout") {
        ""
    } else {
        "command_timeout = \"10s\"\n"
    }
}

/// The configuration of a node called `name` that uses Redis at `urls`, with further lines of `[redis]`.
pub(crate) fn config(name: &str, urls: &str, redis: &str) -> String {
    let patience = patience(redis);
    format!(
        "[server]\nnode_id = \"{name}\"\ndrain_timeout = \"10s\"\n\
         [broker]\nkind = \"redis\"\n\
         [limits]\nmessages_per_second = 0\nconnections_per_user_max = 0\n\
         [redis]\nurl = \"{urls}\"\n{patience}{redis}\n"
    )
}

/// The nodes of one cluster.
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
}

impl Nodes {
    /// Starts `size` nodes and waits until they are ready.
    pub(crate) async fn start(size: usize, urls: &str, redis: &str) -> Self {
        let nodes = (0..size).map(|index| {
            let config = config(&format!("n{index}"), urls, redis);
            async move { Node::start(&config).await }
        });
        let cluster = Self {
            nodes: join_all(nodes).await,
        };
        cluster.until_ready().await;
        cluster
    }

    /// Waits until every node is ready.
    pub(crate) async fn until_ready(&self) {
        let began = Instant::now();
        join_all(self.nodes.iter().map(|node| until_ready(node))).await;
        info!("all nodes are ready after {:?}", began.elapsed());
    }

    /// Waits until no node is ready, and returns the reasons.
    pub(crate) async fn until_unready(&self) -> Vec<String> {
        let began = Instant::now();
        let reasons = join_all(self.nodes.iter().map(until_unready)).await;
        info!("no node is ready any more after {:?}", began.elapsed());
        reasons
    }

    /// Connects a client for each of `users`, with the nodes in turn. Only some of them connect at a time: a node does not
    /// wait for a handshake that takes long.
    pub(crate) async fn peers(&self, users: &[String]) -> Vec<Peer> {
        let nodes = self.nodes.iter().cycle();
        let connecting = users
            .iter()
            .zip(nodes)
            .map(|(user, node)| Peer::connect(node, user));
        stream::iter(connecting).buffered(50).collect().await
    }
}

pub(crate) async fn until_ready(node: &Endpoint) {
    until("the node is ready", async || {
        (node.get("/ready").await.0 == 200).then_some(())
    })
    .await;
}

pub(crate) async fn until_unready(node: &Node) -> String {
    until("the node reports that it is not ready", async || {
        let (status, reason) = node.get("/ready").await;
        (status == 503).then_some(reason)
    })
    .await
}

/// A client, and the frames that it received.
pub(crate) struct Peer {
    pub(crate) user: String,
    sink: SplitSink<Stream, Message>,
    frames: mpsc::UnboundedReceiver<Value>,
    /// Deliveries that arrived while the test waited for another frame.
    deliveries: Vec<Value>,
    /// Ends when this value is dropped, and closes the connection.
    _reader: JoinSet<()>,
}

/// The outcome of a message, as reported to its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    Offline,
    /// `ack` with `kept`: nobody took it, and it is in the history.
    Kept,
    /// `error` with this code; the sender may retry.
    Retryable(String),
}

impl Peer {
    /// A client of `node` that others can reach, because it has received its first frame.
    pub(crate) async fn connect(node: &Endpoint, user: &str) -> Self {
        let mut peer = Self::try_connect(node, user)
            .await
            .unwrap_or_else(|error| panic!("{user} is rejected: {error}"));
        let first = peer.next().await;
        assert_eq!(first["type"], "welcome", "{first}");
        peer
    }

    /// A client of `node` that has received no frame yet.
    ///
    /// # Errors
    /// If the node does not accept the connection.
    pub(crate) async fn try_connect(node: &Endpoint, user: &str) -> tungstenite::Result<Self> {
        let client = node.connect(user, Some("signalbox.v1")).await?;
        let (sink, stream) = client.into_socket().split();
        let (sender, frames) = mpsc::unbounded_channel();
        let mut reader = JoinSet::new();
        reader.spawn(read(stream, sender));
        Ok(Self {
            user: user.to_owned(),
            sink,
            frames,
            deliveries: Vec::new(),
            _reader: reader,
        })
    }

    /// Sends `n` to `receiver` without waiting for an answer.
    pub(crate) async fn send(&mut self, receiver: &str, n: u64) {
        let message = json!({"type": "test", "payload": n, "receiverId": receiver});
        self.send_json(&message).await;
    }

    pub(crate) async fn send_json(&mut self, message: &Value) {
        self.sink
            .send(Message::text(message.to_string()))
            .await
            .expect("the connection stays open");
    }

    /// Sends `n` to `receiver`, and waits for the outcome.
    pub(crate) async fn ask(&mut self, receiver: &str, n: u64) -> Outcome {
        self.ask_json(json!({"type": "test", "payload": n, "receiverId": receiver}))
            .await
    }

    /// Sends a message with an `id`, and waits for the outcome.
    pub(crate) async fn ask_json(&mut self, message: Value) -> Outcome {
        let frame = self.answer_to(message).await;
        let payload = &frame["payload"];
        if frame["type"] == "error" {
            assert_eq!(payload["retryable"], true, "{frame}");
            let code = payload["code"].as_str().expect("a code");
            return Outcome::Retryable(code.to_owned());
        }
        match payload["status"].as_str() {
            Some("delivered" | "handled") => Outcome::Delivered,
            Some("kept") => Outcome::Kept,
            Some("offline") => Outcome::Offline,
            other => panic!("unknown status {other:?}"),
        }
    }

    /// Sends a message with an `id`, and returns its `ack` or `error`.
    pub(crate) async fn answer_to(&mut self, mut message: Value) -> Value {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        message["id"] = json!(id);
        self.send_json(&message).await;
        loop {
            let frame = self.next().await;
            let is_answer = matches!(frame["type"].as_str(), Some("ack" | "error"));
            if is_answer && frame["payload"]["id"] == id {
                return frame;
            }
            self.deliveries.push(frame);
        }
    }

    /// Like [`Peer::ask`]; returns None if the connection ends before there is an answer.
    pub(crate) async fn ask_while_open(&mut self, receiver: &str, n: u64) -> Option<Outcome> {
        let message = json!({"type": "test", "payload": n, "receiverId": receiver, "id": "q"});
        let message = Message::text(message.to_string());
        self.sink.send(message).await.ok()?;
        loop {
            let frame = self.frame().await?;
            match (frame["type"].as_str(), frame["payload"]["status"].as_str()) {
                (Some("ack"), Some("delivered")) => return Some(Outcome::Delivered),
                (Some("ack"), _) => return Some(Outcome::Offline),
                (Some("error"), _) => {
                    let code = frame["payload"]["code"].as_str().expect("a code");
                    return Some(Outcome::Retryable(code.to_owned()));
                }
                _ => {}
            }
        }
    }

    /// The next frame, or None once the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Value> {
        let frame = self.frames.recv().await?;
        (frame["type"] != "closed").then_some(frame)
    }

    /// Joins `room`.
    pub(crate) async fn join(&mut self, room: &str) {
        let outcome = self.ask_json(json!({"type": "join", "room": room})).await;
        assert_eq!(outcome, Outcome::Delivered);
    }

    /// The next delivery.
    pub(crate) async fn delivery(&mut self) -> Value {
        if self.deliveries.is_empty() {
            return self.next().await;
        }
        self.deliveries.remove(0)
    }

    /// `count` deliveries, in the order in which they arrived.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut taken = std::mem::take(&mut self.deliveries);
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    /// All deliveries so far. `sender` sends an end marker, so that earlier messages from its node are included.
    pub(crate) async fn take_until_marker(&mut self, sender: &mut Peer) -> Vec<Value> {
        const STOP: u64 = u64::MAX;
        let user = self.user.clone();
        until("the last message is delivered", async || {
            (sender.ask(&user, STOP).await == Outcome::Delivered).then_some(())
        })
        .await;
        let is_marker = |delivery: &Value| delivery["payload"] == STOP;
        while !self.deliveries.last().is_some_and(is_marker) {
            let next = self.next().await;
            self.deliveries.push(next);
        }
        let mut taken = std::mem::take(&mut self.deliveries);
        taken.pop();
        taken
    }

    /// Sends a close. The connection stays open until the server answers.
    pub(crate) async fn send_close(&mut self) {
        let sent = self.sink.send(Message::Close(None)).await;
        sent.expect("the connection can be closed");
    }

    /// Closes the connection cleanly.
    pub(crate) async fn close(mut self) {
        self.send_close().await;
        while let Some(frame) = self.frames.recv().await {
            if frame["type"] == "closed" {
                break;
            }
        }
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn until_closed(&mut self) {
        let closed = async {
            while self
                .frames
                .recv()
                .await
                .is_some_and(|frame| frame["type"] != "closed")
            {}
        };
        timeout(PATIENCE, closed).await.expect("it is closed");
    }

    async fn next(&mut self) -> Value {
        let frame = timeout(PATIENCE, self.frames.recv()).await;
        let frame = frame
            .unwrap_or_else(|_| panic!("{} got no frame after {:?}", self.user, self.deliveries));
        let frame = frame.expect("the reader is running");
        assert_ne!(frame["type"], "closed", "{}: {frame}", self.user);
        frame
    }
}

/// Forwards every frame, and finally a frame that says how the connection ended.
async fn read(mut stream: SplitStream<Stream>, frames: mpsc::UnboundedSender<Value>) {
    loop {
        let frame = match stream.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("a frame is JSON"),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            other => json!({"type": "closed", "payload": format!("{other:?}")}),
        };
        let is_last = frame["type"] == "closed";
        if frames.send(frame).is_err() || is_last {
            return;
        }
    }
}

/// The numbers in deliveries, by sender, in the order in which they arrived.
pub(crate) fn by_sender(deliveries: &[Value]) -> HashMap<String, Vec<u64>> {
    let mut numbers: HashMap<String, Vec<u64>> = HashMap::new();
    for delivery in deliveries {
        let sender = delivery["senderId"].as_str().expect("a sender");
        let number = delivery["payload"].as_u64().expect("a number");
        numbers.entry(sender.to_owned()).or_default().push(number);
    }
    numbers
}

/// Pairs of clients on different nodes. Each client sends to the other and checks what it receives.
pub(crate) struct Talk {
    pairs: Vec<[Peer; 2]>,
    next: u64,
    /// The outcomes of each pair, round by round: that of the first client, then that of the second.
    outcomes: Vec<Vec<[Outcome; 2]>>,
}

impl Talk {
    /// `count` pairs on these nodes.
    pub(crate) async fn start(cluster: &Nodes, count: usize) -> Self {
        let pair = async |index: usize| {
            let [one, other] = ["a", "b"].map(|side| format!("{side}{index}"));
            let nodes = &cluster.nodes;
            let (here, there) = (index % nodes.len(), (index + 1) % nodes.len());
            [
                Peer::connect(&nodes[here], &one).await,
                Peer::connect(&nodes[there], &other).await,
            ]
        };
        Self {
            pairs: join_all((0..count).map(pair)).await,
            next: 0,
            outcomes: vec![Vec::new(); count],
        }
    }

    /// Every client sends one message to its partner and waits for the outcome.
    pub(crate) async fn round(&mut self) -> Vec<Outcome> {
        let n = self.next;
        self.next += 1;
        let asking = self.pairs.iter_mut().map(async |[one, other]| {
            let (a, b) = (one.user.clone(), other.user.clone());
            tokio::join!(one.ask(&b, n), other.ask(&a, n))
        });
        let outcomes: Vec<[Outcome; 2]> =
            join_all(asking).await.into_iter().map(Into::into).collect();
        for (pair, outcomes) in self.outcomes.iter_mut().zip(&outcomes) {
            pair.push(outcomes.clone());
        }
        outcomes.into_iter().flatten().collect()
    }

    /// Runs rounds until `done`, and returns all outcomes.
    pub(crate) async fn rounds_until(&mut self, done: impl Future<Output = ()>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut done = std::pin::pin!(done);
        loop {
            outcomes.extend(self.round().await);
            let pause = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! {
                () = &mut done => return outcomes,
                () = pause => {}
            }
        }
    }

    /// Runs `count` rounds in which everything must be delivered.
    pub(crate) async fn rounds_delivered(&mut self, count: usize) {
        for _ in 0..count {
            for outcome in self.round().await {
                assert_eq!(outcome, Outcome::Delivered);
            }
        }
    }

    /// Checks that everything sent from round `since` on has arrived, that no message ever arrived twice, and that
    /// messages acked as delivered arrived in order. Messages that were given up may arrive late.
    pub(crate) async fn finish(self, since: u64) {
        for ([mut one, mut other], outcomes) in self.pairs.into_iter().zip(self.outcomes) {
            let to_other = other.take_until_marker(&mut one).await;
            let to_one = one.take_until_marker(&mut other).await;
            for (who, sender, received) in [(&other, 0, to_other), (&one, 1, to_one)] {
                let mut numbers: Vec<u64> = by_sender(&received).into_values().flatten().collect();
                let was_delivered = |n: &u64| outcomes[*n as usize][sender] == Outcome::Delivered;
                let delivered: Vec<u64> = numbers.iter().copied().filter(was_delivered).collect();
                let who = &who.user;
                assert!(delivered.is_sorted(), "{who} got {numbers:?}");
                numbers.sort_unstable();
                assert!(numbers.is_sorted_by(|a, b| a < b), "{who} got {numbers:?}");
                let late: Vec<u64> = numbers.into_iter().filter(|n| *n >= since).collect();
                assert_eq!(late, (since..self.next).collect::<Vec<_>>(), "{who}");
            }
        }
    }

    /// The number of the next round.
    pub(crate) fn next_round(&self) -> u64 {
        self.next
    }
}
