//! The connection: sends the input, shows incoming frames, and reconnects.

use std::{collections::BTreeSet, future::pending, time::Duration};

use anyhow::bail;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::client::Request,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{
    input::{Command, HELP},
    retry::{self, Backoff},
    show::{Incoming, Meaning},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The close frame if the client ends the connection normally.
const GOODBYE: CloseFrame = CloseFrame {
    code: CloseCode::Normal,
    reason: Utf8Bytes::from_static(""),
};

/// The settings of a client.
pub(crate) struct Options {
    /// The upgrade request, with the client's identity.
    pub(crate) request: Request,
    /// The number of messages to wait for at the end of the input.
    pub(crate) expect: usize,
    /// How long to wait for answers and messages at the end of the input.
    pub(crate) patience: Duration,
    /// The waits between attempts to connect.
    pub(crate) backoff: Backoff,
}

/// A client, which outlives its connections.
pub(crate) struct Client<S> {
    options: Options,
    say: S,
    /// The receiver of lines: `receiverId` or `room`, and its value.
    to: Option<(&'static str, String)>,
    /// The rooms to join again after a reconnect.
    rooms: BTreeSet<String>,
    /// The `id`s of frames without an answer.
    waiting: BTreeSet<String>,
    sent: usize,
    messages: usize,
    /// Whether every frame so far was answered with an `ack`.
    good: bool,
    /// When to stop waiting. Set at the end of the input.
    deadline: Option<Instant>,
}

enum End {
    /// The input has ended, and nothing is left to wait for.
    Done,
    /// The user quit.
    Quit,
    /// The connection has closed, with this code and reason.
    Closed(u16, String),
}

impl<S: FnMut(&str)> Client<S> {
    pub(crate) fn new(options: Options, say: S) -> Self {
        Self {
            options,
            say,
            to: None,
            rooms: BTreeSet::new(),
            waiting: BTreeSet::new(),
            sent: 0,
            messages: 0,
            good: true,
            deadline: None,
        }
    }

    /// Chats until `/quit` or the end of `lines`. At the end of `lines`, returns whether every frame was answered with
    /// an `ack` and the expected messages arrived.
    ///
    /// # Errors
    /// Fails if the first attempt to connect fails, if the server refuses the client, or if it closes with a code after
    /// which clients do not reconnect.
    pub(crate) async fn run(mut self, mut lines: mpsc::Receiver<String>) -> anyhow::Result<bool> {
        let mut connected_before = false;
        loop {
            match connect_async(self.options.request.clone()).await {
                Ok((mut socket, _)) => {
                    connected_before = true;
                    let began = Instant::now();
                    match self.talk(&mut socket, &mut lines).await {
                        End::Quit => return Ok(true),
                        End::Done => return Ok(self.good),
                        End::Closed(code, reason) => self.closed(code, &reason)?,
                    }
                    if began.elapsed() > retry::WAIT_MAX {
                        self.options.backoff.reset();
                    }
                }
                Err(Error::Http(answer)) if !retry::tries_again(answer.status().as_u16()) => {
                    let body = answer.body().as_deref().unwrap_or_default();
                    bail!(
                        "refused with {}: {}",
                        answer.status(),
                        String::from_utf8_lossy(body)
                    );
                }
                Err(error) if connected_before => (self.say)(&format!("not connected: {error}")),
                Err(error) => bail!("cannot connect to {}: {error}", self.options.request.uri()),
            }
            if self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            {
                return Ok(false);
            }
            let wait = self.options.backoff.wait();
            (self.say)(&format!("trying again in {:.1} s", wait.as_secs_f64()));
            sleep(wait).await;
        }
    }

    fn closed(&mut self, code: u16, reason: &str) -> anyhow::Result<()> {
        if !self.waiting.is_empty() {
            (self.say)(&format!(
                "{} sent, and nobody knows whether they arrived",
                self.waiting.len()
            ));
            self.waiting.clear();
            self.good = false;
        }
        if !retry::comes_back(code) {
            bail!("closed with {code}: {reason}");
        }
        (self.say)(&format!("closed with {code}: {reason}"));
        Ok(())
    }

    async fn talk(&mut self, socket: &mut Socket, lines: &mut mpsc::Receiver<String>) -> End {
        for room in self.rooms.clone() {
            self.send(socket, json!({"type": "join", "room": room}))
                .await;
        }
        loop {
            let over = self.waiting.is_empty() && self.messages >= self.options.expect;
            if self.deadline.is_some() && over {
                // The connection may already be closed.
                let _ = socket.close(Some(GOODBYE)).await;
                return End::Done;
            }
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => self.receive(&text),
                    Some(Ok(Message::Close(Some(close)))) => {
                        return End::Closed(close.code.into(), close.reason.to_string());
                    }
                    Some(Ok(Message::Close(None))) => return End::Closed(1005, String::new()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return End::Closed(1006, error.to_string()),
                    None => return End::Closed(1006, "the connection was lost".to_owned()),
                },
                line = lines.recv(), if self.deadline.is_none() => match line.as_deref().map(Command::parse) {
                    None => self.deadline = Some(Instant::now() + self.options.patience),
                    Some(Ok(Command::Quit)) => {
                        let _ = socket.close(Some(GOODBYE)).await;
                        return End::Quit;
                    }
                    Some(Ok(command)) => self.obey(socket, command).await,
                    Some(Err(error)) => (self.say)(&error),
                },
                () = at(self.deadline) => {
                    let (answers, messages) = (self.waiting.len(), self.messages);
                    (self.say)(&format!("gave up: {answers} not answered, {messages} messages came"));
                    self.good = false;
                    return End::Done;
                }
            }
        }
    }

    fn receive(&mut self, text: &str) {
        let incoming = match Incoming::read(text) {
            Ok(incoming) => incoming,
            Err(error) => return (self.say)(&format!("not understood ({error}): {text}")),
        };
        (self.say)(&incoming.line());
        match incoming.meaning() {
            Meaning::Answer { id, good } => {
                self.waiting.remove(&id);
                self.good &= good;
            }
            Meaning::Message => self.messages += 1,
            Meaning::Notice => {}
        }
    }

    async fn obey(&mut self, socket: &mut Socket, command: Command) {
        match command {
            Command::Nothing | Command::Quit => {}
            Command::Help => (self.say)(HELP),
            Command::To(user) => self.to = Some(("receiverId", user)),
            Command::Room(room) => self.to = Some(("room", room)),
            Command::Say(text) => self.message(socket, "chat_message", &text).await,
            Command::Me(text) => self.message(socket, "chat.me", &text).await,
            Command::Join(room) => match room.or_else(|| self.room()) {
                Some(room) => {
                    self.rooms.insert(room.clone());
                    self.send(socket, json!({"type": "join", "room": room}))
                        .await;
                    self.to = Some(("room", room));
                }
                None => (self.say)("which room? /join ROOM"),
            },
            Command::Leave(room) => match room.or_else(|| self.room()) {
                Some(room) => {
                    self.rooms.remove(&room);
                    self.send(socket, json!({"type": "leave", "room": room}))
                        .await;
                }
                None => (self.say)("which room? /leave ROOM"),
            },
            Command::Raw(frame) => {
                let id = serde_json::from_str::<Value>(&frame).ok();
                self.waiting
                    .extend(id.and_then(|frame| Some(frame["id"].as_str()?.to_owned())));
                self.put(socket, frame).await;
            }
        }
    }

    fn room(&self) -> Option<String> {
        self.to
            .clone()
            .and_then(|(field, name)| (field == "room").then_some(name))
    }

    async fn message(&mut self, socket: &mut Socket, event_type: &str, text: &str) {
        let Some((field, name)) = &self.to else {
            return (self.say)("whom for? /to USER or /room ROOM");
        };
        let frame = json!({"type": event_type, "payload": {"text": text}, *field: name});
        self.send(socket, frame).await;
    }

    /// Sends a frame with an `id`, so that the server answers it.
    async fn send(&mut self, socket: &mut Socket, mut frame: Value) {
        self.sent += 1;
        let id = self.sent.to_string();
        frame["id"] = json!(id);
        self.waiting.insert(id);
        self.put(socket, frame.to_string()).await;
    }

    async fn put(&mut self, socket: &mut Socket, frame: String) {
        if let Err(error) = socket.send(Message::text(frame)).await {
            // The next read reports how the connection ended.
            (self.say)(&format!("not sent: {error}"));
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
