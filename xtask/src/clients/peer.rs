//! Another user, with a plain connection to the server.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

use super::PATIENCE;
use super::pattern::matches;

/// How long a read waits before the time limit is checked.
const TICK: Duration = Duration::from_secs(1);

/// A connection without a subprotocol.
pub(super) struct Peer(WebSocket<TcpStream>);

impl Peer {
    pub(super) fn connect(address: SocketAddr, user: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("the server takes no connection")?;
        stream.set_read_timeout(Some(TICK))?;
        let url = format!("ws://{address}/ws?userId={user}");
        let (socket, _) = tungstenite::client(url, stream)
            .map_err(|error| anyhow!("the server refuses the upgrade of {user}: {error}"))?;
        Ok(Self(socket))
    }

    pub(super) fn send(&mut self, frame: &Value) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(frame.to_string()))?)
    }

    /// Waits for a frame that matches `pattern`.
    pub(super) fn receive(&mut self, pattern: &Value) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text)?;
                    if matches(pattern, &frame) {
                        return Ok(());
                    }
                    others.push(text);
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(Instant::now() < end, "no such frame came, but: {others:?}");
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}
