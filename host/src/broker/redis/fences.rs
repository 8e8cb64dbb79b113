//! Nodes ask each other whether every message for a user that was published to them has arrived, and say so of each that
//! was forwarded to them.
//!
//! All of it goes over the servers' channels, behind the messages.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};
use tracing::debug;

use super::{
    control,
    keys::{Keys, ServerId},
};
use crate::redis_client::Commands;

/// The beginning of every text that this module sends.
pub(super) const START: &str = r#"{"type":"signalbox.fence"#;

/// How long an answer may take in addition to a command's time. A server that is later than that hangs, and order is lost
/// with it.
const ANSWER_EXTRA: Duration = Duration::from_millis(500);

/// Questions that may be open at a time; over it nobody is asked, and order is not kept for those who move.
const OPEN_MAX: usize = 4_096;

/// Asks other servers, and answers them.
pub(super) struct Fences {
    commands: Commands,
    keys: Arc<Keys>,
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

/// A text from another server that [`Fences`] leaves to its caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// [`Fences::answer`] is due once every message for `user` has arrived.
    Question { id: u64, from: String, user: String },
    /// The message for `user` to which this node gave the number when it forwarded it was handed out, or dropped.
    Arrival { user: String, number: u64 },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Said {
    #[serde(rename = "signalbox.fence")]
    Ask {
        id: u64,
        /// Where to answer.
        from: String,
        user: String,
    },
    #[serde(rename = "signalbox.fence_passed")]
    Passed { id: u64 },
    #[serde(rename = "signalbox.fence_arrived")]
    Arrived { user: String, number: u64 },
}

/// A question that is forgotten when nobody waits for its answer any more.
struct Open<'f> {
    fences: &'f Fences,
    id: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.fences.open().remove(&self.id);
    }
}

impl Fences {
    pub(super) fn new(commands: Commands, keys: Arc<Keys>) -> Self {
        Self {
            commands,
            keys,
            next: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// How long an answer is waited for.
    pub(super) fn time(&self) -> Duration {
        self.keys.command_timeout() + ANSWER_EXTRA
    }

    /// Returns when every message for `user` that was published to `server`, another one, has arrived, or when that cannot
    /// be waited for.
    pub(super) async fn pass(&self, server: &ServerId, user: &str) {
        let (answer, answered) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = self.open();
            if open.len() >= OPEN_MAX {
                return;
            }
            open.insert(id, answer);
        }
        let _open = Open { fences: self, id };
        let ask = Said::Ask {
            id,
            from: self.keys.own_id().to_string(),
            user: user.to_owned(),
        };
        // A server that does not listen is gone, and has nothing.
        if self.say(server, &ask).await && timeout(self.time(), answered).await.is_err() {
            debug!(
                server = &**server,
                "a server did not say whether it passed on what it had"
            );
        }
    }

    /// Answers a [`Heard::Question`].
    pub(super) async fn answer(&self, id: u64, from: &str) {
        self.say(from, &Said::Passed { id }).await;
    }

    /// Says that the message for `user` to which `server` gave `number` was handed out, or dropped.
    pub(super) async fn arrived(&self, server: &str, user: &str, number: u64) {
        let user = user.to_owned();
        self.say(server, &Said::Arrived { user, number }).await;
    }

    /// Takes a text from another server.
    ///
    /// # Errors
    /// Why it cannot be understood.
    pub(super) fn take(&self, text: &str) -> Result<Option<Heard>, String> {
        Ok(
            match serde_json::from_str(text).map_err(|error| error.to_string())? {
                Said::Ask { id, from, user } => Some(Heard::Question { id, from, user }),
                Said::Arrived { user, number } => Some(Heard::Arrival { user, number }),
                Said::Passed { id } => {
                    if let Some(answer) = self.open().remove(&id) {
                        let _ = answer.send(());
                    }
                    None
                }
            },
        )
    }

    /// Whether somebody may have heard it.
    async fn say(&self, server: &str, said: &Said) -> bool {
        match control::say(&self.commands, &self.keys, server, said).await {
            Ok(is_heard) => is_heard,
            Err(error) => {
                debug!(%error, server, "nothing was said to a server about order");
                false
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_begin_as_nothing_else_does() {
        let user = || "u\"".to_owned();
        let ask = Said::Ask {
            id: 1,
            from: "a-1".to_owned(),
            user: user(),
        };
        let arrived = Said::Arrived {
            user: user(),
            number: 7,
        };
        for said in [ask, Said::Passed { id: 1 }, arrived] {
            let text = serde_json::to_string(&said).unwrap();
            assert!(text.starts_with(START), "{text}");
            assert_eq!(serde_json::from_str::<Said>(&text).unwrap(), said);
        }
        assert!(START.starts_with(control::START));
    }
}
