//! A client of a server, which sends a frame and waits for one of a given type.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

/// Time limit for a message to arrive, on a busy machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// A connection of the user ann.
pub(super) struct Client(WebSocket<TcpStream>);

impl Client {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("the server takes no connection")?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        let url = format!("ws://{address}/ws?userId=ann");
        let (socket, _) = tungstenite::client(url, stream)
            .map_err(|error| anyhow!("the server refuses the upgrade: {error}"))?;
        Ok(Self(socket))
    }

    /// Sends a message and returns the payload of the next one of type `answer`.
    pub(super) fn ask(&mut self, message: &Value, answer: &str) -> anyhow::Result<Value> {
        self.0.send(Message::text(message.to_string()))?;
        let mut others = Vec::new();
        loop {
            let frame = self
                .0
                .read()
                .with_context(|| format!("no {answer} came for {message}, but: {others:?}"))?;
            let Message::Text(text) = frame else { continue };
            let mut frame: Value = serde_json::from_str(&text)?;
            if frame["type"] == answer {
                return Ok(frame["payload"].take());
            }
            others.push(text);
        }
    }
}
