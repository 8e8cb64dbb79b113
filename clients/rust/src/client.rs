//! The handles of a client.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Command, Core, Moment, Status};
use crate::error::{Error, codes};
use crate::events::{Answer, Events, Page, Presence, State, queue};
use crate::frames::{Ack, HistoryPayload, OutgoingFrame};
use crate::options::{JoinOptions, Options};
use crate::outgoing::Outgoing;
use crate::room::Room;
use crate::socket::request;
use crate::task;

/// Where the state of a client is.
pub(crate) enum Link {
    /// Here: the client is not connected yet, or closed.
    Resting(Box<Core>),
    /// In the task that gets these commands.
    Running(mpsc::Sender<Command>),
    /// Lost with a runtime that was shut down.
    Gone,
}

/// What all handles of a client share.
pub(crate) struct Shared {
    link: Mutex<Link>,
}

impl Shared {
    pub(crate) fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to Signalbox. Clones are handles of the same client, which closes when the last one is dropped.
///
/// Calls take their order from the first poll of their futures. Dropping the future of a call gives up its answer; a message
/// that still waits for the connection is not sent then.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Makes a client, which is not connected yet, and its events.
    ///
    /// # Errors
    /// Fails with the code `invalid_options` if the URL or the token cannot be used.
    pub fn new(options: Options) -> Result<(Self, Events), Error> {
        check(&options).map_err(|message| Error::new(codes::INVALID_OPTIONS, message))?;
        let (outlet, events) = queue(options.events_max.max(1));
        let core = Box::new(Core::new(options, Box::new(fastrand::f64), outlet));
        let shared = Arc::new(Shared {
            link: Mutex::new(Link::Resting(core)),
        });
        Ok((Self { shared }, events))
    }

    /// Connects the client, and keeps it connected until [`close`](Self::close). Returns at once, and does nothing if the
    /// client is connected or connecting; a wait for the next attempt ends, at most once in 5 s. After `close` it joins the
    /// rooms again that were joined. Panics outside of a runtime of tokio with I/O and time.
    pub async fn connect(&self) {
        // Without a task there is no runtime any more.
        let _ = self.command(Command::Connect).await;
    }

    /// Closes the connection, and fails every call that waits with the code `closed`. No event follows except the change
    /// to `Closed`. It takes at most a second.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.command(Command::Close(reply)).await.is_ok() {
            // Without an answer the task is gone, and the connection with it.
            let _ = done.await;
        }
    }

    /// Joins a room now or as soon as there is a connection, and again after each reconnect, until [`leave`](Room::leave).
    /// Returns when the client is a member for the first time. If the future is dropped, the client goes on trying.
    ///
    /// # Errors
    /// Fails if the server refuses the join for good, or if the client is closed.
    pub async fn join(&self, room: &str, options: JoinOptions) -> Result<Room, Error> {
        let room = self.room(room);
        room.join(options).await?;
        Ok(room)
    }

    /// Returns the handle of a room. This alone joins nothing.
    #[must_use]
    pub fn room(&self, name: &str) -> Room {
        Room::new(self.clone(), name.to_owned())
    }

    /// Sends a message and waits for the server's answer. While there is no connection the message waits in a queue, see
    /// [`Options::offline`](crate::Options::offline).
    ///
    /// # Errors
    /// Fails with the server's error, or with one of [`codes`]. After `connection_lost` and `timeout` the
    /// message may have been delivered.
    pub async fn send(&self, message: Outgoing) -> Result<Answer, Error> {
        let ack = self.call(message.into()).await?;
        Ok(Answer {
            status: ack.status,
            message_id: ack.message_id,
            data: ack.data,
            duplicate: ack.duplicate,
        })
    }

    /// Sends a request to the plugin that handles its type, with [`once`](Outgoing::once), and returns the JSON text of the
    /// data with which it answers.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn request(
        &self,
        event_type: &str,
        payload: impl Into<serde_json::Value>,
    ) -> Result<Option<Box<RawValue>>, Error> {
        let message = Outgoing::new(event_type).payload(payload).once();
        Ok(self.send(message).await?.data)
    }

    /// Returns the state.
    pub async fn state(&self) -> State {
        self.status().await.state
    }

    /// Returns the names of the rooms that the client is in now, sorted.
    pub async fn joined_rooms(&self) -> Vec<String> {
        self.status().await.rooms
    }

    /// Returns the number of messages that wait for the connection.
    pub async fn queued(&self) -> usize {
        self.status().await.queued
    }

    async fn status(&self) -> Status {
        self.ask(Command::Status).await.unwrap_or(Status {
            state: State::Closed,
            rooms: Vec::new(),
            queued: 0,
        })
    }

    pub(crate) async fn join_room(
        &self,
        room: &str,
        options: JoinOptions,
    ) -> Result<Option<bool>, Error> {
        let room = room.to_owned();
        self.ask(|reply| Command::Join {
            room,
            options,
            reply,
        })
        .await?
    }

    pub(crate) async fn leave_room(&self, room: &str) -> Result<(), Error> {
        let room = room.to_owned();
        self.ask(|reply| Command::Leave { room, reply }).await?
    }

    pub(crate) async fn presence(&self, room: &str) -> Presence {
        let room = room.to_owned();
        let asked = self.ask(|reply| Command::Presence { room, reply }).await;
        asked.unwrap_or_default()
    }

    pub(crate) async fn history(
        &self,
        room: &str,
        before: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Page, Error> {
        let mut frame = OutgoingFrame::about("history", Some(room));
        frame.payload = value(HistoryPayload { before, limit });
        Ok(self.call(frame).await?.history.unwrap_or_default())
    }

    async fn call(&self, frame: OutgoingFrame) -> Result<Ack, Error> {
        self.ask(|reply| Command::Call { frame, reply }).await?
    }

    /// Gives a command, and waits for its answer.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply)).await?;
        answer.await.map_err(|_| Error::closed())
    }

    /// Gives a command to the state machine.
    async fn command(&self, mut command: Command) -> Result<(), Error> {
        loop {
            let sender = match &mut *self.shared.link() {
                Link::Gone => return Err(Error::closed()),
                Link::Running(sender) => sender.clone(),
                link => return self.command_at_rest(link, command),
            };
            match sender.send(command).await {
                Ok(()) => return Ok(()),
                // The task is about to end.
                Err(mpsc::error::SendError(returned)) => command = returned,
            }
            tokio::task::yield_now().await;
        }
    }

    fn command_at_rest(&self, link: &mut Link, command: Command) -> Result<(), Error> {
        let Link::Resting(mut core) = std::mem::replace(link, Link::Gone) else {
            return Err(Error::closed());
        };
        let connects = matches!(command, Command::Connect);
        core.command(Moment::now(), command);
        *link = if connects {
            Link::Running(task::start(core, &self.shared))
        } else {
            core.finish_at_rest();
            Link::Resting(core)
        };
        Ok(())
    }
}

fn value(payload: impl Serialize) -> serde_json::Value {
    // Numbers are always JSON.
    serde_json::to_value(payload).unwrap_or_default()
}

fn check(options: &Options) -> Result<(), String> {
    use crate::options::Credentials;
    let token = match &options.credentials {
        Credentials::Token(token) => Some(token.as_str()),
        Credentials::User(_) | Credentials::Callback(_) => None,
    };
    let request = request(&options.url, token)?;
    match request.uri().scheme_str() {
        Some("ws") => Ok(()),
        Some("wss") if cfg!(feature = "tls") => Ok(()),
        Some("wss") => Err("wss:// needs the feature `tls` of signalbox-client".to_owned()),
        _ => Err("the URL must begin with ws:// or wss://".to_owned()),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
