//! Keeps the order of messages between servers: a server asks another one whether every message for a user has arrived, and
//! reports the arrival of each forwarded message. Each answer also says whether the user is there: a route in Redis still lists a
//! server for a moment after the user has left it.
//!
//! These texts use the servers' channels, so they arrive after the messages that were sent before them.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use signalbox_redis_client::Commands;
use tracing::debug;

use super::{
    keys::{KeyNames, ServerId},
    questions::Questions,
};

/// The beginning of every text that this module sends.
pub(super) const START: &str = r#"{"type":"signalbox.fence"#;

/// Asks other servers, and answers them. Order is not kept with a server that does not answer in time.
pub(super) struct Fences {
    /// Answered with whether the server holds the user.
    questions: Questions<bool>,
}

/// A text from another server that [`Fences`] leaves to its caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FenceEvent {
    /// [`Fences::answer`] is due once every message for `user` has arrived.
    Question { id: u64, from: String, user: String },
    /// [`Fences::answer`] is due at once.
    HolderQuestion { id: u64, from: String, user: String },
    /// The message for `user` that this node forwarded with `number` was delivered, or dropped.
    Arrival { user: String, number: u64 },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum FenceText {
    #[serde(rename = "signalbox.fence")]
    Ask {
        id: u64,
        /// Where to answer.
        from: String,
        user: String,
    },
    /// Asks whether the server holds `user` now.
    #[serde(rename = "signalbox.fence_holds")]
    AskHolds {
        id: u64,
        /// Where to answer.
        from: String,
        user: String,
    },
    /// The answer to both questions.
    #[serde(rename = "signalbox.fence_passed")]
    Passed {
        id: u64,
        /// The user is not at this server. Servers with a lease below 7 leave it out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        gone: bool,
    },
    #[serde(rename = "signalbox.fence_arrived")]
    Arrived { user: String, number: u64 },
}

impl Fences {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>) -> Self {
        Self {
            questions: Questions::new(commands, keys),
        }
    }

    /// The longest time that messages wait for others to arrive.
    pub(super) fn time(&self) -> Duration {
        self.questions.time()
    }

    /// Returns when every message for `user` that was published to `server`, another one, has arrived, or when that cannot
    /// be waited for. A server that does not listen is gone, and has none. Returns whether it holds the user then; `true` if that
    /// is unknown.
    pub(super) async fn pass(&self, server: &ServerId, user: &str) -> bool {
        let question = |id, from| FenceText::Ask {
            id,
            from,
            user: user.to_owned(),
        };
        let answer = self.questions.ask(server, question).await;
        if answer.is_none() {
            debug!(
                server = &**server,
                "a server did not confirm that all messages arrived"
            );
        }
        answer.unwrap_or(true)
    }

    /// Whether `server`, another one, holds `user` now; `true` if it does not answer.
    pub(super) async fn holds(&self, server: &ServerId, user: &str) -> bool {
        let question = |id, from| FenceText::AskHolds {
            id,
            from,
            user: user.to_owned(),
        };
        self.questions.ask(server, question).await.unwrap_or(true)
    }

    /// Answers a question. `holds`: whether the user is here.
    pub(super) async fn answer(&self, id: u64, from: &str, holds: bool) {
        let passed = FenceText::Passed { id, gone: !holds };
        self.questions.texts().send(from, &passed).await;
    }

    /// Reports to `server` that the message for `user` that it forwarded with `number` was delivered, or dropped.
    pub(super) async fn arrived(&self, server: &str, user: &str, number: u64) {
        let user = user.to_owned();
        let arrived = FenceText::Arrived { user, number };
        self.questions.texts().send(server, &arrived).await;
    }

    /// Handles a text from another server.
    ///
    /// # Errors
    /// Returns the reason if it cannot be understood.
    pub(super) fn parse(&self, text: &str) -> Result<Option<FenceEvent>, String> {
        let message = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(match message {
            FenceText::Ask { id, from, user } => Some(FenceEvent::Question { id, from, user }),
            FenceText::Arrived { user, number } => Some(FenceEvent::Arrival { user, number }),
            FenceText::AskHolds { id, from, user } => {
                Some(FenceEvent::HolderQuestion { id, from, user })
            }
            FenceText::Passed { id, gone } => {
                self.questions.answered(id, !gone);
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::control, *};

    #[test]
    fn texts_have_a_unique_prefix() {
        let user = || "u\"".to_owned();
        let ask = FenceText::Ask {
            id: 1,
            from: "a-1".to_owned(),
            user: user(),
        };
        let ask_holds = FenceText::AskHolds {
            id: 1,
            from: "a-1".to_owned(),
            user: user(),
        };
        let arrived = FenceText::Arrived {
            user: user(),
            number: 7,
        };
        let passed = |gone| FenceText::Passed { id: 1, gone };
        for message in [ask, ask_holds, passed(false), passed(true), arrived] {
            let text = serde_json::to_string(&message).unwrap();
            assert!(text.starts_with(START), "{text}");
            assert_eq!(serde_json::from_str::<FenceText>(&text).unwrap(), message);
        }
        assert!(START.starts_with(control::START));
    }

    #[test]
    fn an_answer_without_whether_the_user_is_there_is_read_as_before() {
        let text = r#"{"type":"signalbox.fence_passed","id":1}"#;
        let passed = FenceText::Passed { id: 1, gone: false };
        assert_eq!(serde_json::from_str::<FenceText>(text).unwrap(), passed);
        assert_eq!(serde_json::to_string(&passed).unwrap(), text);
    }
}
