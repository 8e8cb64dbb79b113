//! Messages that are handled once although their sender repeats them.
//!
//! A node claims the key of a message before it handles it, and keeps the answer afterwards. A node that dies in between leaves
//! a claim that ends by itself, so a repetition is then handled.

use std::time::Duration;

/// How long a claim lasts that is not renewed.
pub const ONCE_LEASE: Duration = Duration::from_secs(10);

/// The length of a [fingerprint](OnceClaim::fingerprint), in bytes.
pub const FINGERPRINT_BYTES: usize = 32;

/// The name of a message: its sender, and the sender's ID for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OnceKey {
    text: String,
    /// The length of the part that names the sender.
    scope: usize,
    is_user: bool,
}

impl OnceKey {
    /// The message to which a client of `user` gave this `id`.
    pub fn of_user(user: &str, id: &str) -> Self {
        // With its length, a user's ID cannot continue in that of a message.
        let scope = format!("user:{}:{user}", user.len());
        Self {
            text: format!("{scope}:{id}"),
            scope: scope.len(),
            is_user: true,
        }
    }

    /// The request to which the backend with the API key called `caller` gave the key `id`. `caller` contains no colon, and
    /// does not reveal the API key.
    pub fn of_backend(caller: &str, id: &str) -> Self {
        let scope = format!("api:{caller}");
        Self {
            text: format!("{scope}:{id}"),
            scope: scope.len(),
            is_user: false,
        }
    }

    /// The text of the key, different for each.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part of the text that names the sender.
    pub(crate) fn scope(&self) -> &str {
        &self.text[..self.scope]
    }

    /// Whether the sender is a user, not a backend.
    pub(crate) fn is_user(&self) -> bool {
        self.is_user
    }
}

/// The claim of a node to handle a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceClaim {
    /// The message.
    pub key: OnceKey,
    /// A hash of its content, [`FINGERPRINT_BYTES`] hex digits: a repetition has the same.
    pub fingerprint: String,
    /// A text that is different for each claim, without spaces.
    pub nonce: String,
}

/// The state of a message that a node wants to handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnceState {
    /// It is claimed for the caller, who must handle it and then settle the claim.
    Claimed,
    /// It is being handled.
    InProgress,
    /// It was handled, with this answer.
    Answered(String),
    /// Another message has the same key.
    Mismatch,
    /// Too many answers are kept, for this sender or for all.
    Full,
}

/// A change of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceSettlement<'a> {
    /// It lasts for another [`ONCE_LEASE`].
    Renew,
    /// The message was handled: repetitions get `answer`, for `time`.
    Keep {
        /// The answer.
        answer: &'a str,
        /// How long it is kept.
        time: Duration,
    },
    /// The message was not handled: a repetition will be.
    Release,
}

impl OnceClaim {
    /// The text that stands for the claim itself.
    #[cfg(feature = "redis")]
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.fingerprint, self.nonce)
    }

    /// The text that stands for the claim together with its `answer`.
    #[cfg(feature = "redis")]
    pub(crate) fn text_with(&self, answer: &str) -> String {
        format!("{}={answer}", self.fingerprint)
    }

    /// The state that the text `found` at the key stands for; `None` if no node wrote it.
    #[cfg(feature = "redis")]
    pub(crate) fn state_of(&self, found: &str) -> Option<OnceState> {
        let (fingerprint, rest) = found.split_at_checked(FINGERPRINT_BYTES)?;
        let is_same = fingerprint == self.fingerprint;
        match (rest.split_at_checked(1)?, is_same) {
            ((" " | "=", _), false) => Some(OnceState::Mismatch),
            ((" ", nonce), true) if nonce == self.nonce => Some(OnceState::Claimed),
            ((" ", _), true) => Some(OnceState::InProgress),
            (("=", answer), true) => Some(OnceState::Answered(answer.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_messages_have_different_keys() {
        let keys = [
            OnceKey::of_user("ann", "1"),
            OnceKey::of_user("ann:1", "1"),
            OnceKey::of_user("ann", "1:1"),
            OnceKey::of_user("3:ann", "1"),
            OnceKey::of_backend("ann", "1"),
            OnceKey::of_backend("an", "n:1"),
        ];
        let texts: HashSet<&str> = keys.iter().map(OnceKey::as_str).collect();
        assert_eq!(texts.len(), keys.len());
        assert_eq!(keys[0].as_str(), "user:3:ann:1");
        assert_eq!((keys[0].scope(), keys[0].is_user()), ("user:3:ann", true));
        assert_eq!((keys[4].scope(), keys[4].is_user()), ("api:ann", false));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn the_text_of_a_claim_tells_its_state() {
        let claim = OnceClaim {
            key: OnceKey::of_user("ann", "1"),
            fingerprint: "a".repeat(FINGERPRINT_BYTES),
            nonce: "n-1".to_owned(),
        };
        let later = OnceClaim {
            nonce: "n-2".to_owned(),
            ..claim.clone()
        };
        let other = OnceClaim {
            fingerprint: "b".repeat(FINGERPRINT_BYTES),
            ..claim.clone()
        };
        assert_eq!(claim.state_of(&claim.text()), Some(OnceState::Claimed));
        assert_eq!(later.state_of(&claim.text()), Some(OnceState::InProgress));
        for text in [claim.text(), claim.text_with("{}")] {
            assert_eq!(other.state_of(&text), Some(OnceState::Mismatch));
        }
        for answer in ["", "{}", "a=b c", "ä"] {
            let state = later.state_of(&claim.text_with(answer));
            assert_eq!(state, Some(OnceState::Answered(answer.to_owned())));
        }
        let no_state = format!("{}x", claim.fingerprint);
        for text in ["", "x", &claim.fingerprint, &no_state, &"ä".repeat(40)] {
            assert_eq!(claim.state_of(text), None, "{text}");
        }
    }
}
