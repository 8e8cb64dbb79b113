//! The cases, as `clients/conformance/cases.json` describes them.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::proxy;

/// The file with the cases, relative to the repository.
const FILE: &str = "clients/conformance/cases.json";

/// The contents of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    pub(super) cases: Vec<Case>,
    /// Sentences of the specification that no case can test, and the reason.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test reads it"))]
    pub(super) untested: std::collections::BTreeMap<String, String>,
}

/// A requirement, and how it is tested.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// The requirement as a sentence.
    pub(super) name: String,
    /// The sentences of the specification.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test reads it"))]
    pub(super) covers: Vec<String>,
    /// Whether the server demands tokens.
    #[serde(default)]
    pub(super) tokens: bool,
    /// Further lines of `platform.toml`.
    #[serde(default)]
    pub(super) config: String,
    pub(super) steps: Vec<Step>,
}

/// One step of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// Sends the driver a command. `$token:USER:TIME` is replaced by a token, `$token:USER:TIME:ROOM` by one for a room,
    /// `$text:LENGTH` by a text.
    Driver(DriverStep),
    /// Waits for the answer to the command that was called `to`.
    Answer { to: String, is: Value },
    /// Waits for the next event that matches.
    Expect(Value),
    /// Waits for as many messages, and compares all so far with them, in their order.
    Messages {
        #[serde(default)]
        room: Option<String>,
        payloads: Vec<Value>,
    },
    /// No event so far matches.
    Never(Value),
    /// As many events as `is` says match, after as many have come.
    Count { of: Value, is: usize },
    /// Makes the proxy fail.
    Proxy(proxy::Command),
    /// Waits until the proxy's record matches.
    Seen(Value),
    /// Waits until the client has sent a frame that matches, after the last one that was waited for.
    Sent(Value),
    /// As many frames of the client so far match.
    SentCount { of: Value, is: usize },
    /// Changes the server.
    Server(ServerStep),
    /// Calls the API; `POST /api/messages` unless it says otherwise.
    Api {
        #[serde(default = "post")]
        method: String,
        #[serde(default = "messages")]
        path: String,
        #[serde(default)]
        body: Value,
    },
    /// Another user connects, sends, receives, and disconnects, in this order.
    Peer {
        user: String,
        #[serde(default)]
        send: Option<Value>,
        #[serde(default)]
        receive: Option<Value>,
        #[serde(default)]
        disconnect: bool,
    },
    /// Stops the driver's process for so many milliseconds.
    Pause(u64),
    /// Lets time pass in which nothing may happen.
    Quiet(u64),
    /// Does steps several times.
    Repeat { times: usize, steps: Vec<Step> },
    /// Remembers how many files and sockets the driver has open.
    RememberFiles,
    /// The driver has no more files and sockets open than then.
    SameFiles,
}

/// A command for the driver.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct DriverStep {
    /// Its name, for the step that waits for its answer.
    #[serde(rename = "as")]
    pub(super) name: Option<String>,
    /// Waits for its answer, which matches.
    pub(super) answer: Option<Value>,
    #[serde(flatten)]
    pub(super) command: Map<String, Value>,
}

/// A change of the server.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ServerStep {
    Kill,
    Drain,
    Start,
}

fn post() -> String {
    "POST".to_owned()
}

fn messages() -> String {
    "/api/messages".to_owned()
}

/// Reads all cases.
pub(super) fn read(root: &Path) -> anyhow::Result<Cases> {
    let path = root.join(FILE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is wrong", path.display()))
}
