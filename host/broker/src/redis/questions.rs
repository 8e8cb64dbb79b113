//! Questions between servers: a text with a number, and an answer with the same number.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use signalbox_redis_client::{Commands, Unavailable};
use tokio::{sync::oneshot, time::timeout};
use tracing::debug;

use super::{keys::KeyNames, post::Post};

/// How long an answer may take in addition to the command timeout: for the other server to answer, and for the way back.
const ANSWER_EXTRA: Duration = Duration::from_millis(500);

/// The most questions that may be open at a time; beyond it no question is sent.
const OPEN_MAX: usize = 4_096;

/// Sends texts that are no messages to the channels of other servers. Clones share the link.
#[derive(Clone)]
pub(super) struct ServerTexts {
    commands: Commands,
    keys: Arc<KeyNames>,
}

/// The open questions of one kind, with answers of type `A`.
pub(super) struct Questions<A> {
    texts: ServerTexts,
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<A>>>,
}

/// Forgets a question when its caller no longer waits for the answer.
struct Open<'q, A> {
    questions: &'q Questions<A>,
    id: u64,
}

impl<A> Drop for Open<'_, A> {
    fn drop(&mut self) {
        self.questions.open().remove(&self.id);
    }
}

impl ServerTexts {
    /// Sends `text` to `server`, and returns whether it was sent and anybody listens; `true` if the latter is unknown.
    pub(super) async fn send(&self, server: &str, text: &impl Serialize) -> bool {
        // Strings and numbers under string keys always serialize.
        let text = serde_json::to_string(text).unwrap_or_default();
        self.send_text(server, &text).await
    }

    async fn send_text(&self, server: &str, text: &str) -> bool {
        match self.publish(server, text).await {
            Ok(is_heard) => is_heard,
            Err(error) => {
                debug!(%error, server, "a request to another server was not sent");
                false
            }
        }
    }

    async fn publish(&self, server: &str, text: &str) -> Result<bool, Unavailable> {
        let post = Post::new(&self.commands, &self.keys, server, text)?;
        let listeners = self.commands.run_once(post.command()).await?;
        Ok(post.is_heard(listeners))
    }
}

impl<A> Questions<A> {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>) -> Self {
        Self {
            texts: ServerTexts { commands, keys },
            next: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// For texts that are no questions.
    pub(super) fn texts(&self) -> &ServerTexts {
        &self.texts
    }

    /// The longest time that an answer is waited for.
    pub(super) fn time(&self) -> Duration {
        self.texts.keys.command_timeout() + ANSWER_EXTRA
    }

    /// Sends a question to `server` and returns the answer. `question` makes the text from its number and the ID of this
    /// server. `None` if nobody listens there, no answer comes in time, or too many questions are open.
    pub(super) async fn ask<Q: Serialize>(
        &self,
        server: &str,
        question: impl FnOnce(u64, String) -> Q,
    ) -> Option<A> {
        // Strings and numbers under string keys always serialize.
        let question = |id, from| serde_json::to_string(&question(id, from)).unwrap_or_default();
        self.ask_by_text(server, question).await
    }

    /// Like [`Questions::ask`], for a question that is not only JSON.
    pub(super) async fn ask_by_text(
        &self,
        server: &str,
        question: impl FnOnce(u64, String) -> String,
    ) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = self.open();
            if open.len() >= OPEN_MAX {
                return None;
            }
            open.insert(id, answer);
        }
        let _open = Open {
            questions: self,
            id,
        };
        let question = question(id, self.texts.keys.own_id().to_string());
        if !self.texts.send_text(server, &question).await {
            return None;
        }
        timeout(self.time(), answered).await.ok()?.ok()
    }

    /// Passes on the answer to the question `id`. If nobody waits for it any more, it is too late.
    pub(super) fn answered(&self, id: u64, answer: A) {
        if let Some(waiting) = self.open().remove(&id) {
            let _ = waiting.send(answer);
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<A>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
