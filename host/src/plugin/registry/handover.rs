//! The step before a version of a `single` plugin goes live: its state comes with it.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout_at;
use tracing::warn;

use super::{Attempt, NotAdmitted, Registry, Reload, Trigger};
use crate::{
    metrics::HandoverOutcome,
    plugin::{
        LoadError, PluginVersion, Slot,
        handover::{HandedOver, HandoverError, hand_over, hold, is_due},
    },
};

/// Another version than the one that was to be replaced is live by now.
pub(super) struct Replaced;

impl Registry {
    /// Hands over the state of every `single` plugin of `reload` that gets another version, and refuses those versions that
    /// do not take it. The messages of the others are held until what is returned ends, and nothing else takes the place of
    /// what is live of those plugins until then: the probation holds the messages of a version too before it takes it back.
    ///
    /// Who goes back to an earlier version wants to be rid of the later one, and what the whole cluster decided happens on
    /// every node: that happens without the state where it must.
    pub(super) async fn hand_over(&self, reload: &mut Reload) -> Vec<HandedOver> {
        let due = reload
            .places
            .iter()
            .enumerate()
            .filter_map(|(index, place)| match &place.attempt {
                Attempt::Ready(new) => Some((index, new.version.clone())),
                _ => None,
            });
        let due: Vec<_> = due.collect();
        let attempts = due
            .iter()
            .map(async |(index, new)| (*index, self.hand_over_to(new).await));
        let mut handed_over: Vec<HandedOver> = Vec::new();
        let mut open: FuturesUnordered<_> = attempts.collect();
        let mut waited_for: BTreeMap<_, _> = due.iter().cloned().collect();
        loop {
            // Who has handed over holds its messages for the others no longer than it may.
            let until = handed_over.iter().map(HandedOver::until).min();
            let next = match until {
                Some(until) => timeout_at(until.into(), open.next()).await.ok(),
                None => Some(open.next().await),
            };
            let (index, attempt) = match next {
                Some(Some(ended)) => ended,
                Some(None) | None => match waited_for.pop_first() {
                    Some((index, new)) => {
                        drop(std::mem::take(&mut open));
                        let max = new.config().limits.handover_time_max;
                        (index, Err(HandoverError::HeldUp(max)))
                    }
                    None => break,
                },
            };
            waited_for.remove(&index);
            match attempt {
                Ok(handed) => handed_over.extend(handed),
                Err(error) if matches!(reload.trigger, Trigger::Rollback | Trigger::Cluster) => {
                    let plugin = &reload.places[index].config.name;
                    begins_anew(plugin, &error);
                    self.count_handover(plugin, HandoverOutcome::BegunAnew);
                }
                Err(error) => {
                    let plugin = &reload.places[index].config.name;
                    self.count_handover(plugin, HandoverOutcome::GivenUp);
                    let hash = reload.places[index].next().map(|new| *new.hash());
                    let error = LoadError::Handover(error.to_string());
                    self.drop_out(reload, index, NotAdmitted { hash, error });
                }
            }
        }
        handed_over
    }

    /// Hands over the state of what is live now, which may be another version than when the reload began, or than a moment
    /// ago: the probation waits for no reload. None where there is none to hand over.
    async fn hand_over_to(
        &self,
        new: &Arc<PluginVersion>,
    ) -> Result<Option<HandedOver>, HandoverError> {
        loop {
            let old = self.live_version(new.name());
            let Some(old) = old.filter(|old| is_due(old, new)) else {
                return Ok(None);
            };
            let handed_over = hand_over(&old, new).await?;
            let live = self.live_version(new.name());
            if handed_over.is_some() && live.is_some_and(|live| Arc::ptr_eq(&live, &old)) {
                return Ok(handed_over);
            }
        }
    }

    fn count_handover(&self, plugin: &str, outcome: HandoverOutcome) {
        self.metrics.plugins.of(plugin).handed_over(outcome);
    }

    fn live_version(&self, plugin: &str) -> Option<Arc<PluginVersion>> {
        self.live().find(plugin).and_then(Slot::version).cloned()
    }

    /// Holds the messages of a `single` version that is taken back by itself, and hands its state over, if it can: the
    /// earlier one goes live in any case. Waits for a handover of `bad` that is under way.
    ///
    /// # Errors
    /// [`Replaced`], where that handover went well.
    pub(super) async fn hand_back(
        &self,
        bad: &Arc<PluginVersion>,
        good: &Arc<PluginVersion>,
    ) -> Result<Option<HandedOver>, Replaced> {
        if bad.door().is_none() {
            return Ok(None);
        }
        if is_due(bad, good) {
            match hand_over(bad, good).await {
                Ok(handed_over) => return handed_over.map(Some).ok_or(Replaced),
                Err(error) => begins_anew(bad.name(), &error),
            }
        }
        hold(bad, good).await.map(Some).ok_or(Replaced)
    }
}

fn begins_anew(plugin: &str, error: &HandoverError) {
    warn!(
        plugin,
        "the version begins without the state of the one before: {error}"
    );
}
