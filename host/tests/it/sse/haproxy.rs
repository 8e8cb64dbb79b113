//! Three nodes behind HAProxy, which gives each request to another one.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    HISTORY,
    client::{EventClient, Part},
};
use crate::{
    harness::{self, Endpoint},
    process::{Server, Signal},
    redis::{self, free_port, until},
    redis_nodes::{config, until_ready},
};

/// How long a stream that is over may take to say so, before a message is sent again.
const MOMENT: Duration = Duration::from_millis(20);

/// HAProxy in front of nodes, without any affinity.
struct Haproxy {
    child: Child,
    endpoint: Endpoint,
    _dir: tempfile::TempDir,
}

impl Haproxy {
    async fn start(nodes: &[Server]) -> Self {
        loop {
            let mut haproxy = Self::launch(nodes);
            let serves = until("HAProxy serves, or ends", async || {
                if haproxy.child.try_wait().expect("its status").is_some() {
                    return Some(false);
                }
                let health = harness::get(haproxy.endpoint.address, "/health").await;
                (health?.0 == 200).then_some(true)
            })
            .await;
            // Otherwise another process had the port.
            if serves {
                return haproxy;
            }
        }
    }

    fn launch(nodes: &[Server]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut config = format!(
            "defaults\n mode http\n timeout connect 2s\n timeout client 120s\n timeout server 120s\n\
             frontend clients\n bind {address}\n default_backend nodes\n\
             backend nodes\n balance roundrobin\n option httpchk GET /ready\n"
        );
        for (index, node) in nodes.iter().enumerate() {
            let address = node.address;
            config += &format!(" server n{index} {address} check inter 100ms fall 1 rise 1\n");
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, config).expect("the configuration is written");
        let child = Command::new("haproxy")
            .arg("-f")
            .arg(file)
            .stdin(Stdio::null())
            .spawn()
            .expect("haproxy is in PATH; `cargo xtask test` installs it");
        Self {
            child,
            endpoint: Endpoint { address },
            _dir: dir,
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // Both fail only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that connects again whenever its stream is over, and the payloads of the messages that it got.
struct Talker {
    proxy: Endpoint,
    client: EventClient,
    got: Vec<u64>,
    reconnects: usize,
}

impl Talker {
    async fn connect(proxy: Endpoint) -> Self {
        Self {
            proxy,
            client: EventClient::connect(&proxy, "ann").await,
            got: Vec::new(),
            reconnects: 0,
        }
    }

    /// Sends message `n` to itself until it is answered.
    async fn say(&mut self, n: u64) {
        let id = format!("message-{n}");
        let frame = json!({"type": "x", "payload": n, "receiverId": "ann", "id": id, "once": true});
        let frame = frame.to_string();
        until("the message is answered", async || {
            let answer = self.client.post_to(&self.proxy, &frame).await;
            if answer.status == 202 {
                return self.answer(&id).await.then_some(());
            }
            assert!([404, 502, 503].contains(&answer.status), "{answer:?}");
            if let Ok(part) = timeout(MOMENT, self.client.part()).await {
                self.take(part).await;
            }
            None
        })
        .await;
    }

    /// Reads until `id` is answered. Returns whether it was handled.
    async fn answer(&mut self, id: &str) -> bool {
        loop {
            let part = self.client.part().await;
            let Some(frame) = self.take(part).await else {
                return false;
            };
            if frame["payload"]["id"] == id {
                assert!(
                    frame["type"] == "ack" || frame["payload"]["retryable"] == true,
                    "{frame}"
                );
                return frame["type"] == "ack";
            }
        }
    }

    /// Takes a part of the stream. `None` if it was the end, and the client has connected again.
    async fn take(&mut self, part: Part) -> Option<Value> {
        match part {
            Part::Frame(frame) => {
                let frame: Value = serde_json::from_str(&frame).expect("a frame is JSON");
                if frame["type"] == "x" {
                    self.got.push(frame["payload"].as_u64().expect("a number"));
                }
                Some(frame)
            }
            Part::Comment => Some(Value::Null),
            Part::Close(..) | Part::End => {
                let last = self.client.last_id.clone().expect("a place");
                let head = format!("GET /sse?userId=ann HTTP/1.1\r\nLast-Event-ID: {last}");
                self.client = until("the client connects again", async || {
                    EventClient::try_open(&self.proxy, &head).await
                })
                .await;
                let place = &self.client.welcome["user"];
                assert_eq!(place["recovered"], true, "{place}");
                self.reconnects += 1;
                None
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_behind_haproxy_loses_nothing_when_its_node_is_killed() {
    const MESSAGES: u64 = 60;
    let redis = redis::Server::start().await;
    let mut nodes = Vec::new();
    for name in ["n0", "n1", "n2"] {
        let config = config(name, &redis.url(), "");
        nodes.push(Server::start(&format!("{config}{HISTORY}")).await);
    }
    for node in &nodes {
        until_ready(node).await;
    }
    let haproxy = Haproxy::start(&nodes).await;
    let mut ann = Talker::connect(haproxy.endpoint).await;
    for n in 0..MESSAGES {
        if n == MESSAGES / 3 {
            let node = ann.client.welcome["nodeId"].as_str().expect("a node");
            let node = ["n0-", "n1-", "n2-"].map(|name| node.starts_with(name));
            let holder = node.iter().position(|is_it| *is_it).expect("one of them");
            nodes[holder].signal(Signal::KILL);
            nodes[holder].ended().await;
        }
        ann.say(n).await;
    }
    while ann.got.len() < MESSAGES as usize {
        let part = ann.client.part().await;
        ann.take(part).await;
    }
    assert_eq!(ann.got, Vec::from_iter(0..MESSAGES));
    assert!(ann.reconnects > 0);
    let mut takers = 0;
    for node in &nodes {
        if harness::get(node.address, "/health").await.is_some() {
            let taken = node.metric("wss_sse_posts_total{result=\"taken\"} ").await;
            takers += usize::from(taken > Some(0.0));
        }
    }
    assert_eq!(takers, 2, "the nodes that live take turns");
}
