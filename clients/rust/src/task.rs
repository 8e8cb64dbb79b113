//! The task that owns the connection: it carries out the effects of the state machine, and feeds it with what happens.

use std::future::{Future, pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::channel::{Arrival, Channel};
use crate::client::{Link, Shared};
use crate::core::{Command, Core, Effect, Ending, Moment, TokenOf};
use crate::error::TokenError;

type Dialing = Pin<Box<dyn Future<Output = Result<Channel, Ending>> + Send>>;
type Fetching = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// The commands that may wait for the task of a client.
const COMMANDS_MAX: usize = 64;

/// What happened to the connection.
enum Happening {
    Opened(Channel),
    Failed(Ending),
    Arrived(Arrival),
    Fetched(TokenOf, Result<String, TokenError>),
}

/// The connection or the attempt, and the token callbacks that run.
#[derive(Default)]
struct Connection {
    dialing: Option<Dialing>,
    channel: Option<Channel>,
    fetching: Vec<(TokenOf, Fetching)>,
}

/// The place of a task in the client: its commands come here.
struct Seat {
    commands: mpsc::Receiver<Command>,
    shared: Weak<Shared>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.commands.close();
        if let Some(shared) = self.shared.upgrade() {
            let mut link = shared.link();
            if matches!(&*link, Link::Running(sender) if sender.is_closed()) {
                // The task did not end by itself.
                *link = Link::Gone;
            }
        }
    }
}

/// Starts the task of a client, and returns the way to it.
pub(crate) fn start(core: Box<Core>, shared: &Arc<Shared>) -> mpsc::Sender<Command> {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let shared = Arc::downgrade(shared);
    tokio::spawn(run(core, Seat { commands, shared }));
    sender
}

/// Runs a client until it is closed; then its state rests with its handles.
async fn run(mut core: Box<Core>, mut seat: Seat) {
    let mut connection = Connection::default();
    loop {
        connection.perform(&mut core).await;
        if core.is_closed() {
            return rest(core, seat).await;
        }
        let deadline = core.deadline();
        let full = core.outlet().is_full();
        tokio::select! {
            command = seat.commands.recv() => match command {
                Some(command) => core.command(Moment::now(), command),
                None => core.abandoned(Moment::now()),
            },
            happening = connection.next(!full) => match happening {
                Happening::Opened(channel) => {
                    connection.channel = Some(channel);
                    core.opened(Moment::now());
                }
                Happening::Failed(ending) => core.ended(Moment::now(), ending),
                Happening::Arrived(arrival) => handle(&mut core, arrival),
                Happening::Fetched(of, result) => core.fetched(Moment::now(), of, result),
            },
            () = core.outlet().taken(), if full => core.heard(Moment::now()),
            () = at(deadline) => core.fire(Moment::now()),
        }
        core.set_unwritten(connection.unwritten_bytes());
    }
}

/// Puts the state of a closed client where its handles find it, after the commands that are on their way. One of them may
/// connect it again.
async fn rest(mut core: Box<Core>, mut seat: Seat) {
    seat.commands.close();
    while let Some(command) = seat.commands.recv().await {
        core.command(Moment::now(), command);
    }
    if let Some(shared) = seat.shared.upgrade() {
        let mut link = shared.link();
        *link = if core.is_closed() {
            core.finish_at_rest();
            Link::Resting(core)
        } else {
            Link::Running(start(core, &shared))
        };
    }
}

fn handle(core: &mut Core, arrival: Arrival) {
    let now = Moment::now();
    match arrival {
        Arrival::Text(text) => core.received(now, &text),
        Arrival::Sign => core.heard(now),
        Arrival::Binary => {
            core.heard(now);
            core.invalid_frame("a frame is binary");
        }
        Arrival::NotAccepted { id, error } => core.not_accepted(now, &id, error),
        Arrival::Ended(ending) => core.ended(now, ending),
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

impl Connection {
    /// Carries out the effects of the state machine.
    async fn perform(&mut self, core: &mut Core) {
        while let Some(effect) = core.effect() {
            match effect {
                Effect::Dial(dial) => self.dialing = Some(Box::pin(Channel::open(dial))),
                Effect::Write(text) => {
                    if let Some(channel) = &mut self.channel {
                        channel.write(text);
                    }
                }
                Effect::Drop => {
                    self.dialing = None;
                    if let Some(channel) = self.channel.take() {
                        channel.abandon();
                    }
                }
                Effect::Close => {
                    self.dialing = None;
                    if let Some(channel) = self.channel.take() {
                        channel.close().await;
                    }
                }
                Effect::Fetch(of, callback) => {
                    let guarded = AssertUnwindSafe(callback).catch_unwind().map(|ended| {
                        let panicked = |_| TokenError::Later("it panicked".to_owned());
                        ended.map_err(panicked).flatten()
                    });
                    self.fetching.push((of, Box::pin(guarded)));
                }
                Effect::CancelFetch(of) => self.fetching.retain(|(other, _)| *other != of),
                // The application may no longer wait.
                Effect::Done(reply) => drop(reply.send(())),
            }
        }
    }

    fn unwritten_bytes(&self) -> usize {
        self.channel.as_ref().map_or(0, Channel::unwritten_bytes)
    }

    /// Waits for the next happening. Frames arrive only if `reads`. Dropping the future loses nothing.
    async fn next(&mut self, reads: bool) -> Happening {
        let Self {
            dialing,
            channel,
            fetching,
        } = self;
        let fetched = poll_fn(|context| {
            for (index, (_, callback)) in fetching.iter_mut().enumerate() {
                if let Poll::Ready(result) = callback.as_mut().poll(context) {
                    let (of, _) = fetching.swap_remove(index);
                    return Poll::Ready(Happening::Fetched(of, result));
                }
            }
            Poll::Pending
        });
        let dialed = async {
            let Some(attempt) = dialing else {
                return pending().await;
            };
            let opened = attempt.await;
            *dialing = None;
            match opened {
                Ok(channel) => Happening::Opened(channel),
                Err(ending) => Happening::Failed(ending),
            }
        };
        let arrived = async {
            match channel {
                Some(channel) => Happening::Arrived(channel.next(reads).await),
                None => pending().await,
            }
        };
        tokio::select! {
            happening = fetched => happening,
            happening = dialed => happening,
            happening = arrived => happening,
        }
    }
}
