//! Replays the failed calls of a version on trial on the previous version.
//!
//! The previous version runs here as a shadow does: its writes go nowhere, its counters are not reported, its log lines
//! are marked, and its calls wait in a bounded queue for one task. A `single` version is called as it is when it
//! starts, without the state in its memory.

use std::sync::Arc;

use signalbox_protocol::ClientInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    call::{CallKind, MembershipChange, ReplayCall, user_of},
    call_error::CallError,
    evidence::{Evidence, EvidenceSummary, FailedCall},
    message::MessageCopy,
};

mod runner;

pub use self::runner::start;

/// The maximum number of waiting calls, and of their bytes in total.
const CALLS_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;

/// The approximate cost of a call in addition to its texts, in bytes.
const CALL_BYTES: usize = 256;

/// An owned [`ReplayCall`].
enum OwnedCall {
    About(CallKind, Box<MessageCopy>),
    Connected,
    Disconnected(u16, String),
    Join(String),
    Membership(MembershipChange, String, u32),
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
pub struct Replays {
    evidence: Arc<Evidence>,
    waiting: mpsc::Sender<Failed>,
    room: Arc<Semaphore>,
}

impl Replays {
    /// A queue without anyone who replays, and its receiving end.
    fn new() -> (Self, mpsc::Receiver<Failed>) {
        let (waiting, calls) = mpsc::channel(CALLS_MAX);
        let queue = Self {
            evidence: Arc::default(),
            waiting,
            room: Arc::new(Semaphore::new(BYTES_MAX)),
        };
        (queue, calls)
    }

    /// The failures so far, and how the previous version did with the same calls.
    pub fn found(&self) -> EvidenceSummary {
        self.evidence.found()
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
            call: OwnedCall::of(call),
            _room: room,
        });
    }
}

impl OwnedCall {
    fn of(call: &ReplayCall<'_>) -> Self {
        match call {
            ReplayCall::About(asked, message) => {
                let mut copy = MessageCopy::default();
                copy.set(message);
                Self::About(*asked, Box::new(copy))
            }
            ReplayCall::Connected => Self::Connected,
            ReplayCall::Disconnected(code, reason) => {
                Self::Disconnected(*code, (*reason).to_owned())
            }
            ReplayCall::Join(room) => Self::Join((*room).to_owned()),
            ReplayCall::Membership(change, room, connections) => {
                Self::Membership(*change, (*room).to_owned(), *connections)
            }
        }
    }
}
