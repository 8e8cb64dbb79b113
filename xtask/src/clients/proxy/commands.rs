//! The commands of a case for the proxy.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Changes how the next connections begin, or does something to those that are open.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::clients) enum Command {
    /// The next connections begin in this way, and those after them as `all` says.
    Next { times: usize, opening: Opening },
    /// All later connections begin in this way.
    All(Opening),
    /// Upgrades are treated in this way, if their connection is forwarded.
    Upgrades(Treatment),
    /// The same for the requests of streams of events.
    Streams(Treatment),
    /// The same for the frames of clients with server-sent events.
    Posts(Treatment),
    /// Resets the connections.
    Cut,
    /// Ends the stream to the client, and reads on.
    HalfClose,
    /// Lets nothing pass in this direction, without notice.
    Stall(Direction),
    /// Ends a stall: frames that waited pass.
    Resume,
    /// Slows down the frames.
    Slow(Slowness),
    /// Sends the client the last message again.
    RepeatLast,
    /// Drops the next text frame for the client that contains this.
    Drop(String),
    /// Answers the next frames of the client that contain `to` in place of the server. The answer gets the frame's ID.
    Reply {
        to: String,
        #[serde(default = "once")]
        times: usize,
        with: Value,
    },
    /// Sends the client this text frame.
    Inject(String),
    /// Sends the client these bytes.
    InjectBytes(String),
    /// Sends the client a close frame.
    InjectClose {
        code: u16,
        #[serde(default)]
        reason: String,
    },
}

fn once() -> usize {
    1
}

/// How requests of a kind are treated.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::clients) struct Treatment {
    /// So many requests, and those after them are forwarded; by default all requests.
    pub(super) times: Option<usize>,
    pub(super) opening: Opening,
}

/// How a connection or a request begins.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::clients) enum Opening {
    /// It is forwarded to the server.
    Forward,
    /// It is reset at once.
    Refuse,
    /// It is reset when the request has arrived.
    Reset,
    /// Nothing is answered.
    Silent,
    /// The request is answered by the proxy.
    Answer(Answer),
    /// It is forwarded, but no frame of the server arrives; for a stream of events only the head of the answer does.
    Mute,
    /// It is forwarded, and answered by the proxy in place of the server; only for frames with server-sent events.
    Lose(Answer),
    /// It is forwarded when the delay, in milliseconds, is over.
    Delay(u64),
    /// It is forwarded, but the answer names this subprotocol, or none.
    Subprotocol(Option<String>),
}

/// The answer to a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::clients) struct Answer {
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: String,
}

impl Answer {
    /// The answer as it is on the wire.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let headers = self.headers.iter();
        let headers: String = headers
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let Self { status, body, .. } = self;
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Status\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        answer.into_bytes()
    }

    /// The answer to a frame that was taken.
    pub(super) fn taken() -> Self {
        Self {
            status: 202,
            headers: BTreeMap::new(),
            body: String::new(),
        }
    }
}

/// The direction that a stall holds up.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(in crate::clients) enum Direction {
    ToClient,
    ToServer,
    Both,
}

/// How slowly frames pass.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::clients) struct Slowness {
    /// Each frame waits for this time, in milliseconds, plus a part of `jitter_ms`.
    pub(super) delay_ms: u64,
    pub(super) jitter_ms: u64,
    /// 0: no limit.
    pub(super) bytes_per_second: u64,
    /// Each frame arrives in two pieces.
    pub(super) split: bool,
}
