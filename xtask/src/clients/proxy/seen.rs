//! A record of what passed through the proxy.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::request::{Kind, Request};

/// Frames of clients, and how they keep the limits.
#[derive(Default)]
pub(super) struct Seen {
    /// The connections so far.
    pub(super) accepted: usize,
    /// The frames of clients in their order. An upgrade is `{"upgrade":"<path and query>","protocols":"…"}`, and a
    /// request of a stream of events `{"stream":"<path and query>","authorization":"…"}`.
    pub(super) sent: Vec<Value>,
    /// The IDs of joins that are not answered.
    joining: BTreeSet<String>,
    joining_max: usize,
    /// The requests with a frame that are under way.
    posting: usize,
    posting_max: usize,
}

impl Seen {
    /// Notes a request that begins a connection of the protocol.
    pub(super) fn begun(&mut self, request: &Request) {
        self.joining.clear();
        let header = |name| request.header(name).unwrap_or_default();
        self.sent.push(match request.kind {
            Kind::Stream => {
                json!({"stream": request.target(), "authorization": header("authorization")})
            }
            Kind::Upgrade | Kind::Post => {
                let protocols = header("sec-websocket-protocol");
                json!({"upgrade": request.target(), "protocols": protocols})
            }
        });
    }

    /// Notes that a client has begun to send a frame with a request.
    pub(super) fn posting(&mut self) {
        self.posting += 1;
        self.posting_max = self.posting_max.max(self.posting);
    }

    /// Notes that such a request has ended.
    pub(super) fn posted(&mut self) {
        self.posting -= 1;
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
            "posting_max": self.posting_max,
        })
    }
}
