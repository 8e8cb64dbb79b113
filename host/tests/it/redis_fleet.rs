//! Several nodes that meet at one Redis, and clients that write down everything they get.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    future::join_all,
    stream::{SplitSink, SplitStream},
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

/// The configuration of a node called `name` that meets others at `urls`, with further lines of `[redis]`.
pub(crate) fn config(name: &str, urls: &str, redis: &str) -> String {
    format!(
        "[server]\nnode_id = \"{name}\"\ndrain_timeout = \"10s\"\n\
         [broker]\nkind = \"redis\"\n\
         [limits]\nmessages_per_second = 0\nconnections_per_user_max = 0\n\
         [redis]\nurl = \"{urls}\"\n{redis}\n"
    )
}

/// Nodes of one cluster.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
}

impl Fleet {
    /// `size` nodes that are ready.
    pub(crate) async fn start(size: usize, urls: &str, redis: &str) -> Self {
        let nodes = (0..size).map(|index| {
            let config = config(&format!("n{index}"), urls, redis);
            async move { Node::start(&config).await }
        });
        let fleet = Self {
            nodes: join_all(nodes).await,
        };
        fleet.until_ready().await;
        fleet
    }

    /// Waits until every node says that it is ready.
    pub(crate) async fn until_ready(&self) {
        let began = Instant::now();
        join_all(self.nodes.iter().map(|node| until_ready(node))).await;
        info!("all nodes are ready after {:?}", began.elapsed());
    }

    /// Waits until every node says that it is not, and returns why.
    pub(crate) async fn until_unready(&self) -> Vec<String> {
        let began = Instant::now();
        let reasons = join_all(self.nodes.iter().map(until_unready)).await;
        info!("no node is ready any more after {:?}", began.elapsed());
        reasons
    }

    /// A client of each of `users`, on one node after another.
    pub(crate) async fn peers(&self, users: &[String]) -> Vec<Peer> {
        let nodes = self.nodes.iter().cycle();
        let connecting = users
            .iter()
            .zip(nodes)
            .map(|(user, node)| Peer::connect(node, user));
        join_all(connecting).await
    }
}

pub(crate) async fn until_ready(node: &Endpoint) {
    until("the node is ready", async || {
        (node.get("/ready").await.0 == 200).then_some(())
    })
    .await;
}

pub(crate) async fn until_unready(node: &Node) -> String {
    until("the node says that it is not ready", async || {
        let (status, reason) = node.get("/ready").await;
        (status == 503).then_some(reason)
    })
    .await
}

/// A client, and what it got.
pub(crate) struct Peer {
    pub(crate) user: String,
    sink: SplitSink<Stream, Message>,
    frames: mpsc::UnboundedReceiver<Value>,
    /// Deliveries that were passed over while something else was waited for.
    deliveries: Vec<Value>,
    /// Ends with this value, and the connection with it.
    _reader: JoinSet<()>,
}

/// What became of a message, as its sender was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    Offline,
    /// `error` with its code; a sender may try again.
    Retryable(String),
}

impl Peer {
    /// A client of `node` that others can reach: the first frame says so.
    pub(crate) async fn connect(node: &Endpoint, user: &str) -> Self {
        let mut peer = Self::try_connect(node, user)
            .await
            .unwrap_or_else(|error| panic!("{user} is not let in: {error}"));
        let first = peer.next().await;
        assert_eq!(first["type"], "welcome", "{first}");
        peer
    }

    /// A client of `node` that has got no frame yet.
    ///
    /// # Errors
    /// Why it is not let in.
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

    /// Sends `n` to `receiver`, and waits for what the server says to that.
    pub(crate) async fn ask(&mut self, receiver: &str, n: u64) -> Outcome {
        self.ask_json(json!({"type": "test", "payload": n, "receiverId": receiver}))
            .await
    }

    /// Sends a message with an `id`, and waits for what the server says to that.
    pub(crate) async fn ask_json(&mut self, mut message: Value) -> Outcome {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        message["id"] = json!(id);
        self.send_json(&message).await;
        loop {
            let frame = self.next().await;
            let payload = &frame["payload"];
            match frame["type"].as_str() {
                Some("ack") if payload["id"] == id => {
                    return match payload["status"].as_str() {
                        Some("delivered" | "handled") => Outcome::Delivered,
                        Some("offline") => Outcome::Offline,
                        other => panic!("unknown status {other:?}"),
                    };
                }
                Some("error") if payload["id"] == id => {
                    assert_eq!(payload["retryable"], true, "{frame}");
                    let code = payload["code"].as_str().expect("a code");
                    return Outcome::Retryable(code.to_owned());
                }
                _ => self.deliveries.push(frame),
            }
        }
    }

    /// The same as [`Peer::ask`]; none if the connection ends before there is an answer.
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

    /// The next frame; none once the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Value> {
        let frame = self.frames.recv().await?;
        (frame["type"] != "closed").then_some(frame)
    }

    /// Becomes a member of `room`.
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

    /// `count` deliveries, in the order in which they came.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut taken = std::mem::take(&mut self.deliveries);
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    /// All that has come until now, once what another node sent before now has come too: `sender` tells it to stop.
    pub(crate) async fn take_until_told(&mut self, sender: &mut Peer) -> Vec<Value> {
        const STOP: u64 = u64::MAX;
        let user = self.user.clone();
        until("the last message is delivered", async || {
            (sender.ask(&user, STOP).await == Outcome::Delivered).then_some(())
        })
        .await;
        let mut taken = std::mem::take(&mut self.deliveries);
        while taken.last().is_none_or(|last| last["payload"] != STOP) {
            taken.push(self.next().await);
        }
        taken.pop();
        taken
    }

    /// Asks the server to end the connection, which goes on until it answers.
    pub(crate) async fn send_close(&mut self) {
        let sent = self.sink.send(Message::Close(None)).await;
        sent.expect("the connection can be closed");
    }

    /// Ends the connection cleanly.
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
        let frame = frame.unwrap_or_else(|_| panic!("{} got no frame", self.user));
        let frame = frame.expect("the reader goes on");
        assert_ne!(frame["type"], "closed", "{}: {frame}", self.user);
        frame
    }
}

/// Hands on every frame, and as the last one how the connection ended.
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

/// The numbers in deliveries, by sender, in the order in which they came.
pub(crate) fn by_sender(deliveries: &[Value]) -> HashMap<String, Vec<u64>> {
    let mut numbers: HashMap<String, Vec<u64>> = HashMap::new();
    for delivery in deliveries {
        let sender = delivery["senderId"].as_str().expect("a sender");
        let number = delivery["payload"].as_u64().expect("a number");
        numbers.entry(sender.to_owned()).or_default().push(number);
    }
    numbers
}

/// Pairs of clients on different nodes that talk, each to the other, and know what must come of it.
pub(crate) struct Talk {
    pairs: Vec<[Peer; 2]>,
    next: u64,
    /// What each was told about what it sent, round by round: the first of each pair, then the second.
    told: Vec<Vec<[Outcome; 2]>>,
}

impl Talk {
    /// `count` pairs on the nodes of `fleet`.
    pub(crate) async fn start(fleet: &Fleet, count: usize) -> Self {
        let pair = async |index: usize| {
            let [one, other] = ["a", "b"].map(|side| format!("{side}{index}"));
            let nodes = &fleet.nodes;
            let (here, there) = (index % nodes.len(), (index + 1) % nodes.len());
            [
                Peer::connect(&nodes[here], &one).await,
                Peer::connect(&nodes[there], &other).await,
            ]
        };
        Self {
            pairs: join_all((0..count).map(pair)).await,
            next: 0,
            told: vec![Vec::new(); count],
        }
    }

    /// Everybody sends one message to the other and hears what became of it.
    pub(crate) async fn round(&mut self) -> Vec<Outcome> {
        let n = self.next;
        self.next += 1;
        let asking = self.pairs.iter_mut().map(async |[one, other]| {
            let (a, b) = (one.user.clone(), other.user.clone());
            tokio::join!(one.ask(&b, n), other.ask(&a, n))
        });
        let told: Vec<[Outcome; 2]> = join_all(asking).await.into_iter().map(Into::into).collect();
        for (pair, told) in self.told.iter_mut().zip(&told) {
            pair.push(told.clone());
        }
        told.into_iter().flatten().collect()
    }

    /// Rounds until `done`, in which every sender hears something, and what that was.
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

    /// `count` rounds in which everything is delivered.
    pub(crate) async fn rounds_delivered(&mut self, count: usize) {
        for _ in 0..count {
            for outcome in self.round().await {
                assert_eq!(outcome, Outcome::Delivered);
            }
        }
    }

    /// What was sent from round `since` on has come, all of it. Of all that was ever sent nothing came twice, and what
    /// its sender was told to be delivered came in order: what was given up may come late.
    pub(crate) async fn finish(self, since: u64) {
        for ([mut one, mut other], told) in self.pairs.into_iter().zip(self.told) {
            let to_other = other.take_until_told(&mut one).await;
            let to_one = one.take_until_told(&mut other).await;
            for (who, sender, came) in [(&other, 0, to_other), (&one, 1, to_one)] {
                let mut numbers: Vec<u64> = by_sender(&came).into_values().flatten().collect();
                let was_delivered = |n: &u64| told[*n as usize][sender] == Outcome::Delivered;
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
