//! A chat: sends the input, and shows what arrives.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use signalbox_client::{
    Client, Error, Event, Events, JoinOptions, Options, Outgoing, State, StateChange, codes,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    input::{Command, HELP},
    show,
};

/// The settings of a chat.
pub(crate) struct Settings {
    pub(crate) client: Options,
    /// The number of messages to wait for at the end of the input.
    pub(crate) expect: usize,
    /// How long to wait for answers and messages at the end of the input.
    pub(crate) patience: Duration,
}

/// The receiver of lines.
#[derive(Clone)]
enum Receiver {
    User(String),
    Room(String),
}

/// The ID of a frame that was sent, and its status or error.
type Sent = (String, Result<String, Error>);

/// A frame as `/raw` takes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFrame {
    r#type: String,
    #[serde(default)]
    payload: Value,
    #[serde(alias = "receiverID")]
    receiver_id: Option<String>,
    room: Option<String>,
    id: Option<String>,
    #[serde(default)]
    once: bool,
}

/// A chat, until the end of the input.
pub(crate) struct Chat<S> {
    url: String,
    client: Client,
    events: Events,
    expect: usize,
    patience: Duration,
    say: S,
    to: Option<Receiver>,
    /// The frames without an answer.
    waiting: FuturesUnordered<Pin<Box<dyn Future<Output = Sent>>>>,
    /// The joins and leaves among them. No line is read before they are answered.
    memberships: BTreeSet<String>,
    sent: usize,
    messages: usize,
    state: State,
    connected_before: bool,
    /// Whether every frame so far was answered with an `ack`.
    good: bool,
    /// When to stop waiting. Set at the end of the input.
    deadline: Option<Instant>,
}

impl<S: FnMut(&str)> Chat<S> {
    /// # Errors
    /// Fails if the URL or the token cannot be used.
    pub(crate) fn new(settings: Settings, say: S) -> anyhow::Result<Self> {
        let url = settings.client.url.clone();
        let (client, events) = Client::new(settings.client)?;
        Ok(Self {
            url,
            client,
            events,
            expect: settings.expect,
            patience: settings.patience,
            say,
            to: None,
            waiting: FuturesUnordered::new(),
            memberships: BTreeSet::new(),
            sent: 0,
            messages: 0,
            state: State::Disconnected,
            connected_before: false,
            good: true,
            deadline: None,
        })
    }

    /// Chats until `/quit` or the end of `lines`. At the end of `lines`, returns whether every frame was answered with
    /// an `ack` and the expected messages arrived.
    ///
    /// # Errors
    /// Fails if the first attempt to connect fails, if the server refuses the client, or if it closes with a code after
    /// which clients do not reconnect.
    pub(crate) async fn run(mut self, mut lines: mpsc::Receiver<String>) -> anyhow::Result<bool> {
        self.client.connect().await;
        loop {
            let connected = self.state == State::Connected;
            let over = self.waiting.is_empty() && self.messages >= self.expect;
            if connected && over && self.deadline.is_some() {
                break;
            }
            let reads = connected && self.memberships.is_empty() && self.deadline.is_none();
            tokio::select! {
                // The event that says why a call failed comes before its answer.
                biased;
                () = at(self.deadline) => {
                    let (answers, messages) = (self.waiting.len(), self.messages);
                    (self.say)(&format!("gave up: {answers} not answered, {messages} messages came"));
                    self.good = false;
                    break;
                }
                event = self.events.recv() => self.on_event(event.context("the client has ended")?)?,
                Some((id, result)) = self.waiting.next() => self.on_answer(&id, result),
                line = lines.recv(), if reads => match line.as_deref().map(Command::parse) {
                    None => self.deadline = Some(Instant::now() + self.patience),
                    Some(Ok(Command::Quit)) => {
                        self.good = true;
                        break;
                    }
                    Some(Ok(command)) => self.obey(command),
                    Some(Err(error)) => (self.say)(&error),
                },
            }
        }
        self.client.close().await;
        Ok(self.good)
    }

    fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::State(change) => return self.on_state(&change),
            Event::Message(message) => {
                self.messages += 1;
                (self.say)(&show::message(&message));
            }
            Event::Left { room, error } => (self.say)(&format!("left {room}: {}", error.code)),
            Event::Recovery {
                room,
                recovered: false,
                ..
            } => {
                let of = room.map_or(String::new(), |room| format!(" of {room}"));
                (self.say)(&format!("some messages{of} were missed"));
            }
            // The state says the same.
            Event::Error(error)
                if [codes::REFUSED, codes::UNAUTHORIZED].contains(&&*error.code) => {}
            Event::Error(error) => {
                self.good &= error.code == codes::INVALID_FRAME;
                (self.say)(&show::error("", &error));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_state(&mut self, change: &StateChange) -> anyhow::Result<()> {
        self.state = change.state;
        let reason = &change.reason;
        let end = match (change.code, change.status) {
            (Some(code), _) => format!("closed with {code}: {reason}"),
            (None, Some(status)) => format!("refused with {status}: {reason}"),
            (None, None) => format!("not connected: {reason}"),
        };
        match change.state {
            State::Connected => {
                self.connected_before = true;
                if let Some(session) = &change.session {
                    let (user, node) = (&session.user, &session.node);
                    (self.say)(&format!("connected as {user} to node {node}"));
                }
            }
            State::Disconnected if self.connected_before => {
                (self.say)(&end);
                let wait = change.retry_in.unwrap_or_default();
                (self.say)(&format!("trying again in {:.1} s", wait.as_secs_f64()));
            }
            State::Disconnected => bail!("cannot connect to {}: {reason}", self.url),
            State::Closed => bail!("{end}"),
            State::Connecting => {}
        }
        Ok(())
    }

    fn on_answer(&mut self, id: &str, result: Result<String, Error>) {
        self.memberships.remove(id);
        match result {
            // A frame without an `id` asks for no answer.
            Ok(_) if id.is_empty() => {}
            Ok(status) => (self.say)(&format!("  {id}: {status}")),
            Err(error) => {
                self.good = false;
                (self.say)(&show::error(id, &error));
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Nothing | Command::Quit => {}
            Command::Help => (self.say)(HELP),
            Command::To(user) => self.to = Some(Receiver::User(user)),
            Command::Room(room) => self.to = Some(Receiver::Room(room)),
            Command::Say(text) => self.message("chat_message", &text),
            Command::Me(text) => self.message("chat.me", &text),
            Command::Join(room) => match room.or_else(|| self.room()) {
                Some(room) => self.join(room),
                None => (self.say)("which room? /join ROOM"),
            },
            Command::Leave(room) => match room.or_else(|| self.room()) {
                Some(room) => self.leave(&room),
                None => (self.say)("which room? /leave ROOM"),
            },
            Command::Raw(frame) => self.raw(&frame),
        }
    }

    fn room(&self) -> Option<String> {
        match &self.to {
            Some(Receiver::Room(room)) => Some(room.clone()),
            _ => None,
        }
    }

    fn join(&mut self, room: String) {
        let handle = self.client.room(&room);
        self.to = Some(Receiver::Room(room));
        let id = self.wait_for(async move {
            handle.join(JoinOptions::default()).await?;
            Ok(format!("joined {}", handle.name()))
        });
        self.memberships.insert(id);
    }

    fn leave(&mut self, room: &str) {
        let handle = self.client.room(room);
        let id = self.wait_for(async move {
            handle.leave().await?;
            Ok(format!("left {}", handle.name()))
        });
        self.memberships.insert(id);
    }

    fn message(&mut self, event_type: &str, text: &str) {
        let message = Outgoing::new(event_type).payload(json!({"text": text}));
        let message = match self.to.clone() {
            Some(Receiver::User(user)) => message.to(user),
            Some(Receiver::Room(room)) => message.room(room),
            None => return (self.say)("whom for? /to USER or /room ROOM"),
        };
        let client = self.client.clone();
        self.wait_for(async move { Ok(client.send(message).await?.status) });
    }

    fn raw(&mut self, frame: &str) {
        let frame: RawFrame = match serde_json::from_str(frame) {
            Ok(frame) => frame,
            Err(error) => {
                self.good = false;
                return (self.say)(&format!("not sent, this is no frame: {error}"));
            }
        };
        let mut message = Outgoing::new(frame.r#type).payload(frame.payload);
        if let Some(user) = frame.receiver_id {
            message = message.to(user);
        }
        if let Some(room) = frame.room {
            message = message.room(room);
        }
        if frame.once {
            message = message.once();
        }
        let (client, id) = (self.client.clone(), frame.id.unwrap_or_default());
        let answer = async move { (id, client.send(message).await.map(|answer| answer.status)) };
        self.waiting.push(Box::pin(answer));
    }

    /// Waits for the answer to the next frame. Returns its ID.
    fn wait_for(
        &mut self,
        answer: impl Future<Output = Result<String, Error>> + 'static,
    ) -> String {
        self.sent += 1;
        let id = self.sent.to_string();
        let sent = id.clone();
        self.waiting
            .push(Box::pin(async move { (sent, answer.await) }));
        id
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
