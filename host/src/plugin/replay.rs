//! Asks the version before a version on trial what that failed at.
//!
//! It runs beside what serves, as a version on copies does: what it writes goes nowhere, what it counts is not counted, what it
//! logs is marked, and its calls queue in a bounded line for one task. A `single` version is asked as it begins, without the
//! state in its memory.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    CallError,
    evidence::{Case, Evidence},
    message::MessageCopy,
    rollout::{Asked, Told, ask},
    version::{GuestMessage, PluginVersion},
};
use crate::{protocol::ClientInfo, supervise};

/// Calls that may wait, and bytes of all of them.
const CALLS_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;

/// The approximate cost of a call in addition to its texts, in bytes.
const CALL_BYTES: usize = 256;

/// A call of a plugin, to be repeated.
#[derive(Clone, Debug)]
pub enum Call<'a> {
    /// About a message.
    About(Asked, GuestMessage<'a>),
    /// `connections.connected`.
    Connected,
    /// `connections.disconnected`, with code and reason.
    Disconnected(u16, &'a str),
    /// `rooms.authorize-join`.
    Join(&'a str),
}

/// The same, kept.
enum Kept {
    About(Asked, Box<MessageCopy>),
    Connected,
    Disconnected(u16, String),
    Join(String),
}

/// A call that failed.
struct Failed {
    case: Case,
    client: Option<Arc<ClientInfo>>,
    call: Kept,
    /// Its part of the room that all have.
    _room: OwnedSemaphorePermit,
}

/// Calls that failed, on their way to the version before.
#[derive(Debug)]
pub(super) struct Replays {
    evidence: Arc<Evidence>,
    waiting: mpsc::Sender<Failed>,
    room: Arc<Semaphore>,
}

impl Replays {
    /// Asks `before`, until this is dropped. Within a runtime.
    pub(super) fn start(before: &PluginVersion) -> Arc<Self> {
        let version = Arc::new(before.as_double("replay"));
        let evidence = Arc::<Evidence>::default();
        let (waiting, calls) = mpsc::channel(CALLS_MAX);
        let state = (version.clone(), calls, evidence.clone());
        let server = &version.shared.server;
        supervise::spawn("replay of failed calls", server, state, |state| {
            let (version, calls, evidence) = state;
            run(version, calls, evidence).boxed()
        });
        Arc::new(Self {
            evidence,
            waiting,
            room: Arc::new(Semaphore::new(BYTES_MAX)),
        })
    }

    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Takes a call that failed, to be asked again if there is room. Does not wait.
    pub(super) fn offer(
        &self,
        error: &CallError,
        client: Option<&Arc<ClientInfo>>,
        call: &Call<'_>,
    ) {
        let user = user_of(client, call);
        let Some(case) = self.evidence.failed(user, error.kind) else {
            return;
        };
        let room = u32::try_from(CALL_BYTES + call.bytes()).ok();
        let room = room.and_then(|bytes| self.room.clone().try_acquire_many_owned(bytes).ok());
        let (Ok(place), Some(room)) = (self.waiting.try_reserve(), room) else {
            return self.evidence.not_asked(case);
        };
        place.send(Failed {
            case,
            client: client.cloned(),
            call: call.kept(),
            _room: room,
        });
    }
}

/// Whose call it was. A message of a backend that names no sender is one of its own: backends have a key, and no client
/// can speak as one.
pub(super) fn user_of<'a>(client: Option<&'a Arc<ClientInfo>>, call: &Call<'a>) -> &'a str {
    match (client, call) {
        (Some(client), _) => &client.user,
        (None, Call::About(_, message)) if message.sender.is_empty() => message.id,
        (None, Call::About(_, message)) => message.sender,
        (None, _) => "",
    }
}

async fn run(
    version: &Arc<PluginVersion>,
    calls: &mut mpsc::Receiver<Failed>,
    evidence: &Evidence,
) {
    while let Some(failed) = calls.recv().await {
        evidence.asked(failed.case, failed.is_survived_by(version).await);
        // Who serves goes first.
        tokio::task::yield_now().await;
    }
}

impl Failed {
    async fn is_survived_by(&self, version: &Arc<PluginVersion>) -> bool {
        let client = self.client.as_ref();
        match (&self.call, client) {
            (Kept::About(asked, message), _) => {
                let told = ask(*asked, client, message, version).await;
                !matches!(told, Told::Failed(_))
            }
            (Kept::Connected, Some(client)) => {
                !version.follows_connections() || version.connected(client).await.is_ok()
            }
            (Kept::Disconnected(code, reason), Some(client)) => {
                !version.follows_connections()
                    || version.disconnected(client, *code, reason).await.is_ok()
            }
            (Kept::Join(room), Some(client)) => {
                !version.authorizes_rooms() || version.authorize_join(client, room).await.is_ok()
            }
            // These calls are always about a client.
            (Kept::Connected | Kept::Disconnected(..) | Kept::Join(_), None) => false,
        }
    }
}

impl Call<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::About(_, message) => message.payload.len(),
            Self::Connected => 0,
            Self::Disconnected(_, text) | Self::Join(text) => text.len(),
        }
    }

    fn kept(&self) -> Kept {
        match self {
            Self::About(asked, message) => {
                let mut copy = MessageCopy::default();
                copy.set(message);
                Kept::About(*asked, Box::new(copy))
            }
            Self::Connected => Kept::Connected,
            Self::Disconnected(code, reason) => Kept::Disconnected(*code, (*reason).to_owned()),
            Self::Join(room) => Kept::Join((*room).to_owned()),
        }
    }
}
