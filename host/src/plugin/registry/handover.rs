//! The step before a version of a `single` plugin goes live: its state comes with it.

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::warn;

use super::{Attempt, NotAdmitted, Registry, Reload, Trigger};
use crate::plugin::{
    LoadError, PluginVersion,
    handover::{HandedOver, HandoverError, hand_over, is_due},
};

impl Registry {
    /// Hands over the state of every `single` plugin of `reload` that gets another version, and refuses those versions that
    /// do not take it. The messages of the others are held until what is returned ends.
    ///
    /// Who goes back to an earlier version wants to be rid of the later one, and what the whole cluster decided happens on
    /// every node: that happens without the state where it must.
    pub(super) async fn hand_over(&self, reload: &mut Reload) -> Vec<HandedOver> {
        let due = reload
            .places
            .iter()
            .enumerate()
            .filter_map(|(index, place)| match (&place.current, &place.attempt) {
                (Some(old), Attempt::Ready(new)) if is_due(old, &new.version) => {
                    Some((index, old.clone(), new.version.clone()))
                }
                _ => None,
            });
        let attempts = due.map(async |(index, old, new)| (index, hand_over(&old, &new).await));
        let mut handed_over = Vec::new();
        for (index, attempt) in join_all(attempts).await {
            match attempt {
                Ok(handed) => handed_over.push(handed),
                Err(error) if matches!(reload.trigger, Trigger::Rollback | Trigger::Cluster) => {
                    begins_anew(&reload.places[index].config.name, &error);
                }
                Err(error) => {
                    let hash = reload.places[index].next().map(|new| *new.hash());
                    let error = LoadError::Handover(error.to_string());
                    self.drop_out(reload, index, NotAdmitted { hash, error });
                }
            }
        }
        handed_over
    }

    /// Hands over the state of a version that is taken back by itself, if it can: the earlier one goes live in any case.
    pub(super) async fn hand_back(
        &self,
        bad: &Arc<PluginVersion>,
        good: &Arc<PluginVersion>,
    ) -> Option<HandedOver> {
        if !is_due(bad, good) {
            return None;
        }
        let handed_over = hand_over(bad, good).await;
        handed_over
            .map_err(|error| begins_anew(bad.name(), &error))
            .ok()
    }
}

fn begins_anew(plugin: &str, error: &HandoverError) {
    warn!(
        plugin,
        "the version begins without the state of the one before: {error}"
    );
}
