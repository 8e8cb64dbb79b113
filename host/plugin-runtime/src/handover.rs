//! Hands over the state of a `single` instance from one version to the next.
//!
//! New messages are held, those in progress are waited for, the old instance saves, the new one restores, and the
//! caller makes the new version live. Until then nothing is lost: if any step fails or takes too long, the old instance
//! continues as before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use signalbox_telemetry::metrics::events::PluginHandedOver;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout, timeout_at},
};
use tracing::warn;

use super::{
    bindings::exported::handover::{SnapshotParam, SnapshotResult},
    call_error::CallError,
    gate::HeldGate,
    instance::{Instance, InstanceGuest, ask},
    instances::Lease,
    limits::Budget,
    log::clean,
    version::PluginVersion,
};

/// The number of attempts to find a moment without messages in progress, within the time limit of the whole handover.
const ATTEMPTS: u32 = 3;

/// Messages continue between two attempts for that time limit divided by this number.
const PAUSE_SHARE: u32 = 20;

/// Why the state was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Messages in progress did not end.
    #[error(
        "messages that were under way did not end within {0:?} (`handover_time_max`), in {ATTEMPTS} attempts; try again, \
         or allow more"
    )]
    Busy(Duration),
    /// Another plugin of the same change has handed over, and can hold its messages for this one no longer.
    #[error(
        "it took longer than another plugin of the same change may hold its messages (`handover_time_max` of that plugin)"
    )]
    HeldUp,
    /// The handover did not finish in time.
    #[error("{step} and the steps before it took longer than {max:?} (`handover_time_max`)")]
    TooSlow {
        /// The step that ran out of time.
        step: &'static str,
        /// The limit.
        max: Duration,
    },
    /// The plugin refused.
    #[error("{step} refused: {reason}")]
    Refused {
        /// `save` or `restore`.
        step: &'static str,
        /// The reason that it gave.
        reason: String,
    },
    /// A call failed.
    #[error("{step} failed: {reason}")]
    Failed {
        /// `save` or `restore`.
        step: &'static str,
        /// The error.
        reason: String,
    },
    /// The state is too large.
    #[error("the state has {bytes} bytes, the limit is {max} (`handover_bytes_max`)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// A state that the new version has taken over. The messages of the old version are held until this value ends: by
/// [`Self::end`] once the new version is live, or by being dropped, after which the old version continues.
pub struct HandedOver {
    old: Arc<PluginVersion>,
    new: Arc<PluginVersion>,
    gate: HeldGate,
    began: Instant,
    /// The deadline by which the new version must be live.
    until: Instant,
    carried: Option<Carried>,
}

/// The state that was carried over.
struct Carried {
    bytes: usize,
    /// Tells the task that keeps the old instance that the instance is no longer needed.
    over: oneshot::Sender<()>,
}

/// The answer of an instance to `save`, and the channel that reports that the instance is no longer needed.
struct Saved {
    answer: Result<SnapshotResult, String>,
    over: oneshot::Sender<()>,
}

impl HandedOver {
    /// The deadline by which the new version must be live. Messages are not held beyond it.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Ends the handover once the new version is live; waiting messages go to that version.
    pub fn end(mut self) {
        let carried = self.carried.take();
        PluginHandedOver {
            metrics: self.new.metrics(),
            plugin: self.new.name(),
            old: self.old.label(),
            new: self.new.label(),
            bytes: carried.as_ref().map(|carried| carried.bytes),
            held: self.began.elapsed(),
        }
        .emit();
        if let Some(carried) = carried {
            // The keeping task can only be gone if the runtime is.
            let _ = carried.over.send(());
        }
        self.gate.close();
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        let held = self.began.elapsed();
        self.new.metrics().handover_time.record(held);
    }
}

/// Whether `old` has a state that must not be split, so that messages are held and the state is handed over to `new`.
pub fn is_due(old: &PluginVersion, new: &PluginVersion) -> bool {
    old.gate().is_some() && new.gate().is_some()
}

/// Holds the messages of `old` and hands its state over to `new`, if both can do so. All attempts together take at most
/// `handover_time_max` of `new`, from the moment in which messages are first held. `None` if another version has
/// replaced `old` by the time at which its gate can be held: that version has the state now.
///
/// # Errors
/// Returns [`HandoverError`] if the handover fails. `old` then continues to serve with its state, unless saving it
/// trapped.
pub async fn hand_over(
    old: &Arc<PluginVersion>,
    new: &Arc<PluginVersion>,
) -> Result<Option<HandedOver>, HandoverError> {
    let max = new.config().limits.handover_time_max;
    let mut deadline = None;
    for left in (1..ATTEMPTS).rev() {
        match try_to_hand_over(old, new, &mut deadline, left + 1).await {
            Err(HandoverError::Busy(_)) => sleep(max / PAUSE_SHARE).await,
            ended => return ended,
        }
    }
    try_to_hand_over(old, new, &mut deadline, 1).await
}

/// Holds the messages of `old`, so that `new` can replace it without its state. `None` as with [`hand_over`].
pub async fn hold(old: &Arc<PluginVersion>, new: &Arc<PluginVersion>) -> Option<HandedOver> {
    let gate = old.gate()?.hold().await?;
    let began = Instant::now();
    Some(HandedOver {
        old: old.clone(),
        new: new.clone(),
        gate,
        began,
        until: began + new.config().limits.handover_time_max,
        carried: None,
    })
}

/// `deadline` is shared by all attempts and is set by the first hold. This attempt waits for messages in progress for
/// its share of the remaining time, with `left` attempts to go including this one.
async fn try_to_hand_over(
    old: &Arc<PluginVersion>,
    new: &Arc<PluginVersion>,
    deadline: &mut Option<Instant>,
    left: u32,
) -> Result<Option<HandedOver>, HandoverError> {
    let Some(mut held) = hold(old, new).await else {
        return Ok(None);
    };
    let max = new.config().limits.handover_time_max;
    let deadline = *deadline.get_or_insert(held.began + max);
    held.until = deadline;
    let carries = old.hands_over() && new.hands_over();
    let empty = timeout(
        patience(deadline, Instant::now(), left),
        held.gate.until_empty(),
    )
    .await;
    if !carries {
        // There is nothing to lose except the order of the calls in progress.
        return Ok(Some(held));
    }
    empty.map_err(|_| HandoverError::Busy(max))?;
    let too_slow = |step| HandoverError::TooSlow { step, max };
    let (reply, saved) = oneshot::channel();
    tokio::spawn(keep(old.clone(), deadline, reply));
    let saved = timeout_at(deadline.into(), saved).await;
    let saved = match saved.map_err(|_| too_slow("save"))? {
        Ok(saved) => saved?,
        Err(_) => return Err(failed("save", &"the host gave it up".to_owned())),
    };
    let snapshot = saved.answer.map_err(|reason| refused("save", &reason))?;
    let (bytes, bytes_max) = (snapshot.data.len(), new.config().limits.handover_bytes_max);
    if bytes > bytes_max {
        let max = bytes_max;
        return Err(HandoverError::TooLarge { bytes, max });
    }
    let restored = timeout_at(deadline.into(), restore(new, deadline, snapshot)).await;
    restored.map_err(|_| too_slow("restore"))??;
    let over = saved.over;
    held.carried = Some(Carried { bytes, over });
    Ok(Some(held))
}

/// Makes the instance of `old` save, keeps it until the fate of the state is known, and gives it back if the new
/// version does not go live. Runs in its own task: a caller that waits for a slow save gives up, and that must not cost
/// the instance.
async fn keep(
    old: Arc<PluginVersion>,
    deadline: Instant,
    reply: oneshot::Sender<Result<Saved, HandoverError>>,
) {
    let (lease, instance) = match Lease::wait(&old.instances, deadline).await {
        Ok(taken) => taken,
        Err(error) => {
            let _ = reply.send(Err(failed("save", &error)));
            return;
        }
    };
    let (instance, answer) = match save(&old, instance).await {
        Ok(answer) => answer,
        Err(error) => {
            // The lease starts another instance, which does not have the state.
            let (plugin, version) = (old.name(), old.label());
            warn!(
                plugin,
                version, "saving the state failed, and it is lost: {error}"
            );
            let _ = reply.send(Err(failed("save", &error)));
            return;
        }
    };
    let (over, is_over) = oneshot::channel();
    let waits = reply.send(Ok(Saved { answer, over })).is_ok();
    if waits && is_over.await.is_ok() {
        lease.retire();
    } else {
        lease.give_back(instance);
    }
}

async fn save(
    old: &PluginVersion,
    mut instance: Instance,
) -> Result<(Instance, Result<SnapshotResult, String>), CallError> {
    let limits = &old.config().limits;
    // A state that is too large is refused, which costs only the swap. What wasmtime refuses costs the instance, so its
    // limit is set to as much as the instance can have; the snapshot is a copy of a part of the instance's memory.
    instance
        .guest()
        .store
        .set_hostcall_fuel(limits.memory_max.max(limits.output_bytes_max));
    let ask = |mut guest: Box<InstanceGuest>| ask!(guest, handover.call_save());
    let (mut instance, answer) = instance.lifecycle_call(Budget::init(limits), ask).await?;
    instance
        .guest()
        .store
        .set_hostcall_fuel(limits.output_bytes_max);
    Ok((instance, answer))
}

/// Makes the instance of `new` restore the state.
async fn restore(
    new: &Arc<PluginVersion>,
    deadline: Instant,
    snapshot: SnapshotResult,
) -> Result<(), HandoverError> {
    let taken = Lease::wait(&new.instances, deadline).await;
    let (lease, instance) = taken.map_err(|error| failed("restore", &error))?;
    let ask = move |mut guest: Box<InstanceGuest>| {
        ask!(
            guest,
            handover.call_restore(SnapshotParam {
                format: snapshot.format,
                data: &snapshot.data,
            })
        )
    };
    let budget = Budget::init(&new.config().limits);
    let restored = instance.lifecycle_call(budget, ask).await;
    let (instance, answer) = restored.map_err(|error| failed("restore", &error))?;
    answer.map_err(|reason| refused("restore", &reason))?;
    lease.give_back(instance);
    Ok(())
}

fn refused(step: &'static str, reason: &str) -> HandoverError {
    HandoverError::Refused {
        step,
        reason: clean(reason),
    }
}

fn failed(step: &'static str, reason: &impl ToString) -> HandoverError {
    HandoverError::Failed {
        step,
        reason: reason.to_string(),
    }
}

/// How long an attempt waits for messages in progress, with `left` attempts to go including this one.
fn patience(deadline: Instant, now: Instant, left: u32) -> Duration {
    deadline.saturating_duration_since(now) / left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attempts_together_hold_messages_no_longer_than_a_handover_may_take() {
        let (began, max) = (Instant::now(), Duration::from_secs(2));
        let (mut now, mut held) = (began, Duration::ZERO);
        for left in (1..=ATTEMPTS).rev() {
            let patience = patience(began + max, now, left);
            assert!(patience >= max / 5, "each has its part: {patience:?}");
            now += patience + max / PAUSE_SHARE;
            held += patience;
        }
        assert!(held <= max, "{held:?}");
        assert_eq!(patience(began, now, 1), Duration::ZERO, "none after it");
    }
}
