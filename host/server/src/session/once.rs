//! Messages that are handled once although their sender repeats them, for clients and backends alike.

use std::{
    future::Future,
    pin::pin,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserialize;
use signalbox_broker::{
    FINGERPRINT_BYTES, ONCE_LEASE, OnceClaim, OnceKey, OnceSettlement, OnceState,
};
use signalbox_plugin_runtime::hex;
use signalbox_protocol::{ErrorCode, Frame};
use signalbox_telemetry::metrics::OnceOutcome;
use tokio::time::sleep;
use tracing::debug;

use super::{Services, not_sent::NotSent};

/// The identity of a message, or of a call with several messages: its repetitions have the same.
#[derive(Clone, Debug)]
pub struct OnceIdentity {
    key: OnceKey,
    fingerprint: String,
}

/// One message of an [`OnceIdentity`] while it is handled: histories append it once, even if the first attempt got no answer from
/// Redis and counts as failed.
#[derive(Debug)]
pub struct OnceMessage {
    id: String,
    /// How many deliveries of it began; a plugin may ask for several.
    deliveries: AtomicUsize,
    /// The message ID of the first attempt, if that appended it.
    first_id: OnceLock<String>,
}

/// The ID in the frame of a message.
#[derive(Deserialize)]
struct WithMessageId {
    #[serde(rename = "messageId")]
    message_id: Option<String>,
}

/// The beginning of a message that is handled once.
pub enum OnceStart<'s> {
    /// It is the first one: handle it, and then settle the claim.
    First(OnceHandle<'s>),
    /// It is a repetition: this is the answer of the first one.
    Repetition(String),
}

/// The right to handle a message. If it is dropped without being settled, the message counts as being handled for at most
/// [`ONCE_LEASE`].
pub struct OnceHandle<'s> {
    services: &'s Services,
    claim: OnceClaim,
}

impl OnceIdentity {
    /// The message or call named `key`, with the content `parts`.
    pub fn new(key: OnceKey, parts: &[&[u8]]) -> Self {
        let fingerprint = fingerprint(parts);
        Self { key, fingerprint }
    }

    /// The message number `message` of it, for the receiver number `receiver` of that message. All messages of a call have
    /// different numbers, and the same ones in its repetitions.
    pub fn message(&self, message: usize, receiver: usize) -> OnceMessage {
        // A failed attempt is forgotten, so another message may have the same key.
        let hash = fingerprint(&[self.key.as_str().as_bytes(), self.fingerprint.as_bytes()]);
        OnceMessage {
            id: format!("{hash}-{message}-{receiver}"),
            deliveries: AtomicUsize::new(0),
            first_id: OnceLock::new(),
        }
    }
}

impl OnceMessage {
    /// The name of the next delivery of the message, for [`signalbox_broker::AppendOnce::id`].
    pub(super) fn next_delivery(&self) -> String {
        let number = self.deliveries.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.id)
    }

    /// Notes that the message is in a history as `first`, which an earlier attempt appended.
    pub(super) fn repeats(&self, first: &Frame) {
        let found = serde_json::from_str::<WithMessageId>(first.as_str());
        if let Some(id) = found.ok().and_then(|found| found.message_id) {
            // If it was set, then by an earlier delivery.
            let _ = self.first_id.set(id);
        }
    }

    /// The message ID with which an earlier attempt appended it to a history; `None` if none did.
    pub fn first_id(&self) -> Option<&str> {
        self.first_id.get().map(String::as_str)
    }
}

/// A hash of the content of a message, which consists of `parts`.
fn fingerprint(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // With its length, no part can continue in the next one.
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let hash = context.finish();
    hex(&hash.as_ref()[..FINGERPRINT_BYTES / 2])
}

/// Begins to handle a message, or a call.
///
/// # Errors
/// Returns [`NotSent`] if it must not be handled now: it is being handled, another message has the same key, or it is unknown
/// whether it is a repetition.
pub async fn begin(services: &Services, identity: OnceIdentity) -> Result<OnceStart<'_>, NotSent> {
    let OnceIdentity { key, fingerprint } = identity;
    let claim = OnceClaim {
        key,
        fingerprint,
        nonce: services.ids.next().to_string(),
    };
    let state = services.router.broker().begin_once(&claim).await;
    let (outcome, code, message) = match state {
        Ok(OnceState::Claimed) => return Ok(OnceStart::First(OnceHandle { services, claim })),
        Ok(OnceState::Answered(answer)) => {
            count(services, OnceOutcome::Repeated);
            return Ok(OnceStart::Repetition(answer));
        }
        Ok(OnceState::InProgress) => (
            OnceOutcome::InProgress,
            ErrorCode::InProgress,
            "the first message with this ID is being handled; try again",
        ),
        Ok(OnceState::Mismatch) => (
            OnceOutcome::Mismatch,
            ErrorCode::OnceMismatch,
            "another message had this ID; give each message its own",
        ),
        Ok(OnceState::Full) => (
            OnceOutcome::Full,
            ErrorCode::Unavailable,
            "too many answers are kept for repetitions; try again later",
        ),
        Err(error) => {
            debug!(%error, "a message may be a repetition, and is not handled");
            (
                OnceOutcome::Unavailable,
                ErrorCode::Unavailable,
                "the server cannot find out now whether this is a repetition; try again",
            )
        }
    };
    count(services, outcome);
    Err(NotSent::refused(code, message))
}

impl OnceHandle<'_> {
    /// Handles the message by `work`, however long that takes, and keeps the claim meanwhile.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> T {
        renewing(work, || self.settle_as(OnceSettlement::Renew)).await
    }

    /// Keeps the `answer` for repetitions. `None`: the message was not handled, and a repetition will be.
    pub async fn settle(self, answer: Option<&str>) {
        let time = self.services.live.load().limits.once_time;
        let settlement = answer.map_or(OnceSettlement::Release, |answer| OnceSettlement::Keep {
            answer,
            time,
        });
        let outcome = match (answer, self.settle_as(settlement).await) {
            (None, _) => OnceOutcome::Released,
            (Some(_), true) => OnceOutcome::Kept,
            (Some(_), false) => OnceOutcome::Unkept,
        };
        count(self.services, outcome);
    }

    /// Returns whether the claim was settled.
    async fn settle_as(&self, settlement: OnceSettlement<'_>) -> bool {
        let broker = self.services.router.broker();
        match broker.settle_once(&self.claim, settlement).await {
            Ok(was_claimed) => was_claimed,
            Err(error) => {
                debug!(%error, "the claim of a message was not settled");
                false
            }
        }
    }
}

/// Completes `work`, and renews a claim by `renew` until then. The work goes on while the claim is renewed.
async fn renewing<T, R: Future>(work: impl Future<Output = T>, renew: impl Fn() -> R) -> T {
    let mut work = pin!(work);
    loop {
        let renewed = async {
            sleep(ONCE_LEASE / 3).await;
            renew().await
        };
        tokio::select! {
            result = &mut work => return result,
            _ = renewed => {}
        }
    }
}

fn count(services: &Services, outcome: OnceOutcome) {
    services.metrics.once.of(outcome).increment();
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::HashSet, time::Duration};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_renewed_as_long_as_the_message_is_being_handled() {
        let start = Instant::now();
        let renewals = RefCell::new(vec![start]);
        let renew = || async {
            sleep(Duration::from_secs(1)).await;
            renewals.borrow_mut().push(Instant::now());
        };
        let work = async {
            sleep(ONCE_LEASE * 4).await;
            "done"
        };
        assert_eq!(renewing(work, renew).await, "done");
        assert_eq!(start.elapsed(), ONCE_LEASE * 4);
        let renewals = renewals.into_inner();
        let gaps = renewals.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max() < Some(ONCE_LEASE / 2));
        assert!(renewals.last().map(Instant::elapsed) < Some(ONCE_LEASE / 2));
    }

    #[test]
    fn deliveries_have_the_same_names_in_a_repetition_and_others_have_other_names() {
        let identity =
            |id, content| OnceIdentity::new(OnceKey::of_user("ann", id), &[content, b"x"]);
        let two = |message: OnceMessage| [message.next_delivery(), message.next_delivery()];
        let identities = [
            identity("1", b"a"),
            identity("1", b"b"),
            identity("2", b"a"),
            OnceIdentity::new(OnceKey::of_backend("ann", "1"), &[b"a", b"x"]),
        ];
        let places = [(0, 0), (0, 1), (1, 0), (11, 0), (1, 10), (999, 9_999)];
        let mut names = HashSet::new();
        for (one, (message, receiver)) in identities
            .iter()
            .flat_map(|one| places.map(|place| (one, place)))
        {
            let deliveries = two(one.message(message, receiver));
            assert_eq!(deliveries, two(one.message(message, receiver)));
            for name in deliveries {
                assert!(name.len() <= 64, "{name}");
                assert!(names.insert(name));
            }
        }
    }

    #[test]
    fn the_id_of_the_first_attempt_is_that_of_the_message_in_the_history() {
        let message = OnceIdentity::new(OnceKey::of_user("ann", "1"), &[]).message(0, 0);
        for without in [r#"{"type":"x","payload":{"messageId":"p"}}"#, "{"] {
            message.repeats(&Frame::from(without.to_owned()));
            assert_eq!(message.first_id(), None);
        }
        let first = r#"{"type":"x","payload":1,"messageId":"m-1"}"#;
        message.repeats(&Frame::from(first.to_owned()));
        assert_eq!(message.first_id(), Some("m-1"));
    }

    #[test]
    fn messages_with_other_content_have_other_fingerprints() {
        let all = [
            fingerprint(&[b"a", b"b"]),
            fingerprint(&[b"ab", b""]),
            fingerprint(&[b"", b"ab"]),
            fingerprint(&[b"a", b"c"]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(one.len(), FINGERPRINT_BYTES);
            assert!(!all[index + 1..].contains(one), "{one}");
        }
        assert_eq!(all[0], fingerprint(&[b"a", b"b"]));
    }
}
