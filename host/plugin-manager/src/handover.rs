//! Hands over the state of a `single` plugin before its new version goes live.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::stream::{FuturesUnordered, StreamExt};
use signalbox_plugin_runtime::{
    LoadError, PluginVersion,
    handover::{HandedOver, HandoverError, hand_over, hold, is_due},
};
use signalbox_telemetry::metrics::HandoverOutcome;
use tokio::time::timeout_at;
use tracing::warn;

use super::{
    PluginManager, Trigger,
    load::LoadFailure,
    reload::{Progress, Reload},
};

/// Another version has already gone live in place of the one that was to be replaced.
pub(super) struct AlreadyReplaced;

impl PluginManager {
    /// Hands over the state of every `single` plugin of `reload` that gets another version, and refuses versions that
    /// do not accept it. The messages of the other `single` plugins are held until the returned values end, and until
    /// then nothing else replaces their live versions: the probation, too, holds the messages of a version before it
    /// rolls the version back.
    ///
    /// An operator who rolls back wants to be rid of the later version, and a decision of the whole cluster takes
    /// effect on every node. Both go ahead without the state if they must.
    pub(super) async fn hand_over(&self, reload: &mut Reload) -> Vec<HandedOver> {
        let due = reload
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| match &entry.progress {
                Progress::Ready(new) => Some((index, new.version.clone())),
                _ => None,
            });
        let due: Vec<_> = due.collect();
        let attempts = due
            .iter()
            .map(async |(index, new)| (*index, self.hand_over_to(new).await));
        let mut handed_over: Vec<HandedOver> = Vec::new();
        let mut open: FuturesUnordered<_> = attempts.collect();
        let mut waited_for: BTreeSet<_> = due.iter().map(|(index, _)| *index).collect();
        loop {
            // A plugin that has handed over holds its messages for the others no longer than it may.
            let until = handed_over.iter().map(HandedOver::until).min();
            let next = match until {
                Some(until) => timeout_at(until.into(), open.next()).await.ok(),
                None => Some(open.next().await),
            };
            let (index, attempt) = match next {
                Some(Some(ended)) => ended,
                Some(None) | None => match waited_for.pop_first() {
                    Some(index) => {
                        drop(std::mem::take(&mut open));
                        (index, Err(HandoverError::HeldUp))
                    }
                    None => break,
                },
            };
            waited_for.remove(&index);
            match attempt {
                Ok(handed) => handed_over.extend(handed),
                Err(error) if matches!(reload.trigger, Trigger::Rollback | Trigger::Cluster) => {
                    let plugin = &reload.entries[index].config.name;
                    warn_starts_empty(plugin, &error);
                    self.count_handover(plugin, HandoverOutcome::BegunAnew);
                }
                Err(error) => {
                    let plugin = &reload.entries[index].config.name;
                    self.count_handover(plugin, HandoverOutcome::GivenUp);
                    let hash = reload.entries[index].next().map(|new| *new.hash());
                    let error = LoadError::Handover(error.to_string());
                    self.drop_out(reload, index, LoadFailure { hash, error });
                }
            }
        }
        handed_over
    }

    /// Hands over the state of the version that is live now. That may not be the one that was live when the reload
    /// began, or even a moment ago, because the probation does not wait for reloads. `None` if there is no state to
    /// hand over.
    async fn hand_over_to(
        &self,
        new: &Arc<PluginVersion>,
    ) -> Result<Option<HandedOver>, HandoverError> {
        loop {
            let old = self.live().live_version(new.name()).cloned();
            let Some(old) = old.filter(|old| is_due(old, new)) else {
                return Ok(None);
            };
            let handed_over = hand_over(&old, new).await?;
            let live = self.live().live_version(new.name()).cloned();
            if handed_over.is_some() && live.is_some_and(|live| Arc::ptr_eq(&live, &old)) {
                return Ok(handed_over);
            }
        }
    }

    fn count_handover(&self, plugin: &str, outcome: HandoverOutcome) {
        self.metrics.plugins.of(plugin).handed_over(outcome);
    }

    /// Holds the messages of a `single` version that is rolled back automatically, and hands over its state if
    /// possible; the earlier version goes live in any case. Waits for a handover of `bad` that is in progress.
    ///
    /// # Errors
    /// Returns [`AlreadyReplaced`] if that handover succeeded.
    pub(super) async fn hand_back(
        &self,
        bad: &Arc<PluginVersion>,
        good: &Arc<PluginVersion>,
    ) -> Result<Option<HandedOver>, AlreadyReplaced> {
        if bad.gate().is_none() {
            return Ok(None);
        }
        if is_due(bad, good) {
            match hand_over(bad, good).await {
                Ok(handed_over) => return handed_over.map(Some).ok_or(AlreadyReplaced),
                Err(error) => warn_starts_empty(bad.name(), &error),
            }
        }
        hold(bad, good).await.map(Some).ok_or(AlreadyReplaced)
    }
}

fn warn_starts_empty(plugin: &str, error: &HandoverError) {
    warn!(
        plugin,
        "the version starts without the state of the previous one: {error}"
    );
}
