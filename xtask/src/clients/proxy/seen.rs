//! A record of what passed through the proxy.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Frames of clients, and how they keep the limits.
#[derive(Default)]
pub(super) struct Seen {
    /// The connections so far.
    pub(super) accepted: usize,
    /// The frames of clients in their order. An upgrade is `{"upgrade":"<path and query>","protocols":"…"}`.
    pub(super) sent: Vec<Value>,
    /// The IDs of joins that are not answered.
    joining: BTreeSet<String>,
    joining_max: usize,
}

impl Seen {
    /// Notes the head of an upgrade.
    pub(super) fn upgrade(&mut self, head: &str) {
        self.joining.clear();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("sec-websocket-protocol");
            is_it.then(|| value.trim().to_owned())
        };
        let protocols = head.lines().find_map(header).unwrap_or_default();
        self.sent
            .push(json!({"upgrade": path, "protocols": protocols}));
    }

    /// Notes a frame of a client.
    pub(super) fn note_client(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        if frame["type"] == "join"
            && let Some(id) = frame["id"].as_str()
        {
            self.joining.insert(id.to_owned());
            self.joining_max = self.joining_max.max(self.joining.len());
        }
        self.sent.push(frame);
    }

    /// Notes that the proxy answers this frame of a client.
    pub(super) fn answered(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(id) = frame["id"].as_str() {
            self.joining.remove(id);
        }
    }

    /// Notes a frame of the server before the client gets it.
    pub(super) fn note_server(&mut self, text: &str) {
        if self.joining.is_empty() {
            return;
        }
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(id) = frame["payload"]["id"].as_str() {
            self.joining.remove(id);
        }
    }

    /// The record for patterns.
    pub(super) fn to_json(&self, live: usize) -> Value {
        json!({
            "accepted": self.accepted,
            "live": live,
            "joining": self.joining.len(),
            "joining_max": self.joining_max,
        })
    }
}
