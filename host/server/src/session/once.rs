//! Messages that are handled once although their sender repeats them, for clients and backends alike.

use std::{future::Future, pin::pin};

use aws_lc_rs::digest::{Context, SHA256};
use signalbox_broker::{
    FINGERPRINT_BYTES, ONCE_LEASE, OnceClaim, OnceKey, OnceSettlement, OnceState,
};
use signalbox_plugin_runtime::hex;
use signalbox_protocol::ErrorCode;
use signalbox_telemetry::metrics::OnceOutcome;
use tokio::time::sleep;
use tracing::debug;

use super::{Services, not_sent::NotSent};

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

/// A hash of the content of a message, which consists of `parts`.
pub fn fingerprint(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // With its length, no part can continue in the next one.
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let hash = context.finish();
    hex(&hash.as_ref()[..FINGERPRINT_BYTES / 2])
}

/// Begins to handle the message called `key`.
///
/// # Errors
/// Returns [`NotSent`] if it must not be handled now: it is being handled, another message has the same key, or it is unknown
/// whether it is a repetition.
pub async fn begin(
    services: &Services,
    key: OnceKey,
    fingerprint: String,
) -> Result<OnceStart<'_>, NotSent> {
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
    use std::{cell::RefCell, time::Duration};

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
