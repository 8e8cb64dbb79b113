//! Replays the failed calls of a version on trial on the previous version.
//!
//! The previous version runs here as a shadow does: its writes go nowhere, its counters are not reported, its log lines
//! are marked, and its calls wait in a bounded queue for one task. A `single` version is called as it is when it
//! starts, without the state in its memory.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    CallError,
    evidence::{Evidence, FailedCall},
    message::MessageCopy,
    rollout::{CallKind, VersionAnswer, ask},
    version::{GuestMessage, PluginVersion},
};
use crate::{protocol::ClientInfo, supervise};

/// The maximum number of waiting calls, and of their bytes in total.
const CALLS_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;

/// The approximate cost of a call in addition to its texts, in bytes.
const CALL_BYTES: usize = 256;

/// A call of a plugin, to be replayed.
#[derive(Clone, Debug)]
pub enum ReplayCall<'a> {
    /// About a message.
    About(CallKind, GuestMessage<'a>),
    /// `connections.connected`.
    Connected,
    /// `connections.disconnected`, with code and reason.
    Disconnected(u16, &'a str),
    /// `rooms.authorize-join`.
    Join(&'a str),
}

/// An owned [`ReplayCall`].
enum OwnedCall {
    About(CallKind, Box<MessageCopy>),
    Connected,
    Disconnected(u16, String),
    Join(String),
}

/// A failed call that waits to be replayed.
struct Failed {
    case: FailedCall,
    client: Option<Arc<ClientInfo>>,
    call: OwnedCall,
    /// Its share of the memory budget of all waiting calls.
    _room: OwnedSemaphorePermit,
}

/// The queue of failed calls for the previous version.
#[derive(Debug)]
pub(super) struct Replays {
    evidence: Arc<Evidence>,
    waiting: mpsc::Sender<Failed>,
    room: Arc<Semaphore>,
}

impl Replays {
    /// Replays calls on `before` until this value is dropped. Must be called within a Tokio runtime.
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

    /// Records a failed call, and queues it for a replay if there is room. Does not wait.
    pub(super) fn offer(
        &self,
        error: &CallError,
        client: Option<&Arc<ClientInfo>>,
        call: &ReplayCall<'_>,
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

/// The user who made the call. A backend message without a sender counts as its own user: backends have a key, and no
/// client can pose as one.
pub(super) fn user_of<'a>(client: Option<&'a Arc<ClientInfo>>, call: &ReplayCall<'a>) -> &'a str {
    match (client, call) {
        (Some(client), _) => &client.user,
        (None, ReplayCall::About(_, message)) if message.sender.is_empty() => message.id,
        (None, ReplayCall::About(_, message)) => message.sender,
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
        // Tasks that serve clients go first.
        tokio::task::yield_now().await;
    }
}

impl Failed {
    async fn is_survived_by(&self, version: &Arc<PluginVersion>) -> bool {
        let client = self.client.as_ref();
        match (&self.call, client) {
            (OwnedCall::About(asked, message), _) => {
                let told = ask(*asked, client, message, version).await;
                !matches!(told, VersionAnswer::Failed(_))
            }
            (OwnedCall::Connected, Some(client)) => {
                !version.follows_connections() || version.connected(client).await.is_ok()
            }
            (OwnedCall::Disconnected(code, reason), Some(client)) => {
                !version.follows_connections()
                    || version.disconnected(client, *code, reason).await.is_ok()
            }
            (OwnedCall::Join(room), Some(client)) => {
                !version.authorizes_rooms() || version.authorize_join(client, room).await.is_ok()
            }
            // These calls are always about a client.
            (OwnedCall::Connected | OwnedCall::Disconnected(..) | OwnedCall::Join(_), None) => {
                false
            }
        }
    }
}

impl ReplayCall<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::About(_, message) => message.payload.len(),
            Self::Connected => 0,
            Self::Disconnected(_, text) | Self::Join(text) => text.len(),
        }
    }

    fn kept(&self) -> OwnedCall {
        match self {
            Self::About(asked, message) => {
                let mut copy = MessageCopy::default();
                copy.set(message);
                OwnedCall::About(*asked, Box::new(copy))
            }
            Self::Connected => OwnedCall::Connected,
            Self::Disconnected(code, reason) => {
                OwnedCall::Disconnected(*code, (*reason).to_owned())
            }
            Self::Join(room) => OwnedCall::Join((*room).to_owned()),
        }
    }
}
