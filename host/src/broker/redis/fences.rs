//! Has another server say that it has passed on every message for a user that was published to it.
//!
//! Question and answer go over the servers' channels, behind the messages. When the answer is here, those are where
//! the user is now, so what is published there from now on comes after them.

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
    held::Held,
    keys::{Keys, ServerId},
};
use crate::redis_client::Commands;

/// How everything begins that is said about fences.
pub(super) const START: &str = r#"{"type":"signalbox.fence"#;

/// How long an answer may take beside a command's time. A server that is later than that hangs, and order is lost with it.
const ANSWER_EXTRA: Duration = Duration::from_millis(500);

/// Questions that may be open at a time; over it nobody is asked, and order is not kept for those who move.
const OPEN_MAX: usize = 4_096;

/// Asks other servers, and answers them.
pub(super) struct Fences {
    commands: Commands,
    keys: Arc<Keys>,
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Vec<String>>>>,
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
        /// Whether to answer when everything is passed on, instead of at once.
        #[serde(default = "yes")]
        wait: bool,
    },
    #[serde(rename = "signalbox.fence_passed")]
    Passed {
        id: u64,
        /// The servers that messages for the user were forwarded to of late.
        to: Vec<String>,
    },
}

/// The value of `wait` in questions of nodes that do not know it.
fn yes() -> bool {
    true
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

    /// Returns the servers that `server`, another one, passed messages for `user` on to of late. With `wait`, it has passed
    /// on everything that it had for them, or cannot be waited for.
    pub(super) async fn pass(&self, server: &ServerId, user: &str, wait: bool) -> Vec<ServerId> {
        let (answer, answered) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = self.open();
            if open.len() >= OPEN_MAX {
                return Vec::new();
            }
            open.insert(id, answer);
        }
        let _open = Open { fences: self, id };
        let ask = Said::Ask {
            id,
            from: self.keys.own_id().to_string(),
            user: user.to_owned(),
            wait,
        };
        // A server that does not listen is gone, and has nothing.
        match control::say(&self.commands, &self.keys, server, &ask).await {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(error) => {
                debug!(%error, server = &**server, "a server was not asked for what it holds");
                return Vec::new();
            }
        }
        match timeout(self.time(), answered).await {
            Ok(Ok(to)) => to.into_iter().map(Arc::from).collect(),
            _ => {
                debug!(
                    server = &**server,
                    "a server did not say whether it passed on what it had"
                );
                Vec::new()
            }
        }
    }

    /// Takes what another server said. A question is about the messages in `held`.
    ///
    /// # Errors
    /// Why it cannot be understood.
    pub(super) fn take(&self, text: &str, held: &Arc<Held>) -> Result<(), String> {
        match serde_json::from_str(text).map_err(|error| error.to_string())? {
            Said::Passed { id, to } => {
                if let Some(answer) = self.open().remove(&id) {
                    let _ = answer.send(to);
                }
            }
            Said::Ask {
                id,
                from,
                user,
                wait,
            } => {
                let (commands, keys) = (self.commands.clone(), self.keys.clone());
                let held = held.clone();
                // Not here: this is where everything comes in.
                tokio::spawn(async move {
                    let to = held.passed(&user, wait).await;
                    let to = to.iter().map(ToString::to_string).collect();
                    let passed = Said::Passed { id, to };
                    if let Err(error) = control::say(&commands, &keys, &from, &passed).await {
                        debug!(%error, server = from, "a server was not answered");
                    }
                });
            }
        }
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Vec<String>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_begins_as_nothing_else_does() {
        let ask = Said::Ask {
            id: 1,
            from: "a-1".to_owned(),
            user: "u\"".to_owned(),
            wait: false,
        };
        let passed = Said::Passed {
            id: 1,
            to: vec!["b-1".to_owned()],
        };
        for said in [ask, passed] {
            let text = serde_json::to_string(&said).unwrap();
            assert!(text.starts_with(START), "{text}");
            assert_eq!(serde_json::from_str::<Said>(&text).unwrap(), said);
        }
        assert!(START.starts_with(control::START));
    }
}
