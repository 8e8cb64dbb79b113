//! Rolls back to a version that was live before.
//!
//! A rollback does not wait for a reload or an operation in progress, which may compile for minutes. Like the
//! probation, it takes the set that is live at that moment, and changes one place in it.

use std::{sync::Arc, time::Instant};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{
    LoadError, PluginSet, PluginSlot, PluginVersion, Sha256, handover::HandedOver,
};
use tracing::Instrument;

use super::{
    Change, ChangeError, PluginManager, Reload, ReloadProgress, Trigger, Unchanged,
    load::{LoadFailure, LoadOutcome, LoadedVersion},
    operations::{label_of, load_outcome},
    plugin_history::VersionEntry,
    reload::ReloadEntry,
    swap_span,
};

/// The minimum number of sha256 digits that identify a version. Logs and reports show this many.
const DIGITS_MIN: usize = 12;

/// A version to roll back to.
pub(super) enum RollbackTarget {
    /// The version was live in this process.
    Resting(Arc<PluginVersion>),
    /// The version was live in an earlier process.
    Kept(Sha256),
}

impl RollbackTarget {
    /// The hash of its component.
    pub(super) fn hash(&self) -> &Sha256 {
        match self {
            Self::Resting(version) => version.hash(),
            Self::Kept(hash) => hash,
        }
    }
}

impl PluginManager {
    /// Rolls back to the version whose sha256 starts with `to`, or without `to` to the latest version that was not
    /// itself rolled back. The component runs with the configuration that it had, or with the current one if it was
    /// live in an earlier process. A file that is being loaded in the meantime is skipped.
    ///
    /// # Errors
    /// Returns [`ChangeError`] if the operation fails; the live version then stays.
    pub async fn roll_back(
        &self,
        plugin: &str,
        to: Option<&str>,
        file_bytes_max: usize,
    ) -> Result<Change, ChangeError> {
        let swap = swap_span(plugin, Trigger::Rollback);
        let back = self.roll_back_now(plugin, to, file_bytes_max);
        let changed = back.instrument(swap).await;
        self.until_kept(plugin).await;
        changed
    }

    async fn roll_back_now(
        &self,
        plugin: &str,
        to: Option<&str>,
        file_bytes_max: usize,
    ) -> Result<Change, ChangeError> {
        let (mut reload, index) = self.reload_of(plugin, Trigger::Rollback, Instant::now())?;
        let entry = &reload.entries[index];
        if to.is_none()
            && let Some(change) = self.end_trial(entry, reload.began)
        {
            return Ok(change);
        }
        let Some(back) = self.earlier(plugin, to.map(str::to_owned), entry.current.as_ref())?
        else {
            return Ok(Change::Unchanged(Unchanged::Live));
        };
        let replaced = label_of(entry);
        let refused = |hash, error, live| Err(ChangeError::Refused { hash, error, live });
        let new = match self.go_back(&entry.config, back, file_bytes_max).await {
            Ok(LoadOutcome::New(new)) => new,
            Ok(LoadOutcome::Same(why)) => return Ok(Change::Unchanged(why)),
            Err(not_admitted) => {
                let (hash, error) = (not_admitted.hash, not_admitted.error.clone());
                self.refuse(entry, not_admitted, Trigger::Rollback);
                return refused(hash, error, replaced);
            }
        };
        let version = new.version.clone();
        reload.entries[index].attempt = ReloadProgress::Ready(Box::new(new));
        self.settle_conflicts(&mut reload);
        let mut handed_over = self.hand_over(&mut reload).await;
        let entry = &mut reload.entries[index];
        let ReloadProgress::Ready(new) =
            std::mem::replace(&mut entry.attempt, ReloadProgress::Over)
        else {
            let error = reload.refusals.pop().map(|(_, error)| error);
            let error = error.unwrap_or(LoadError::Start("it was given up".to_owned()));
            return refused(Some(*version.hash()), error, replaced);
        };
        self.put_back(plugin, *new, handed_over.pop(), &reload)?;
        Ok(Change::Live {
            version,
            replaced,
            took: reload.began.elapsed(),
        })
    }

    /// Makes `new` live in its place, and leaves all other places as they are at that moment.
    fn put_back(
        &self,
        plugin: &str,
        new: LoadedVersion,
        handed_over: Option<HandedOver>,
        reload: &Reload,
    ) -> Result<(), ChangeError> {
        let switch = self.switch();
        let live = self.live();
        let slot = live.find(plugin);
        let slot = slot.ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))?;
        let (config, old) = (slot.config().clone(), slot.version().cloned());
        let slots = live.slots().iter().map(|slot| {
            if slot.config().name == plugin {
                PluginSlot::new(config.clone(), Some(new.version.clone()), None)
            } else {
                slot.clone()
            }
        });
        self.store_live(PluginSet::new(slots.collect()));
        // Not earlier: once released, held messages look up the live set.
        handed_over.into_iter().for_each(HandedOver::end);
        self.remember(&config, &new, old.as_deref(), reload.trigger);
        self.histories
            .with(plugin, |history| history.gone_back = Some(Instant::now()));
        self.report_swap(old.as_deref(), &new.version, reload.trigger, reload.began);
        self.keep(plugin, new.component);
        drop(switch);
        Ok(())
    }

    /// Prepares a version that was live before.
    pub(super) async fn go_back(
        &self,
        config: &Arc<PluginConfig>,
        back: RollbackTarget,
        bytes_max: usize,
    ) -> Result<LoadOutcome, LoadFailure> {
        match back {
            RollbackTarget::Resting(earlier) => {
                // It was admitted before, and starts here as it did then.
                let version = Arc::new(earlier.anew());
                let warmed = version.warm_up().await;
                let warmed = warmed.map_err(|error| LoadError::Start(error.detail));
                load_outcome(warmed.map(|()| version), *earlier.hash(), None)
            }
            RollbackTarget::Kept(hash) => {
                let pace = self.pace(&config.name);
                let loaded = self.load_kept(config, &hash, bytes_max, pace).await;
                load_outcome(loaded, hash, None)
            }
        }
    }

    /// The version to roll back to; `None` if that is the live version.
    pub(super) fn earlier(
        &self,
        plugin: &str,
        to: Option<String>,
        current: Option<&Arc<PluginVersion>>,
    ) -> Result<Option<RollbackTarget>, ChangeError> {
        let Some(to) = to else {
            let earlier = self
                .histories
                .with(plugin, |history| history.good().next().map(back));
            return earlier.map(Some).ok_or(ChangeError::NoEarlierVersion);
        };
        let sha256 = to.to_ascii_lowercase();
        if sha256.len() < DIGITS_MIN {
            return Err(ChangeError::NoSuchVersion(to));
        }
        if current.is_some_and(|live| live.hash().to_string().starts_with(&sha256)) {
            return Ok(None);
        }
        let earlier = self
            .histories
            .with(plugin, |history| history.earlier(&sha256).map(back));
        earlier.map(Some).ok_or(ChangeError::NoSuchVersion(to))
    }

    /// Withdraws the version that is on trial alongside the live one, if there is one.
    pub(super) fn end_trial(&self, entry: &ReloadEntry, began: Instant) -> Option<Change> {
        let (rollout, live) = (entry.rollout.as_ref()?, entry.current.as_ref()?);
        self.withdraw(&entry.config.name, rollout, "an operator took it back");
        Some(Change::Live {
            version: live.clone(),
            replaced: Some(rollout.candidate().label().to_owned()),
            took: began.elapsed(),
        })
    }
}

pub(super) fn back(entry: &VersionEntry) -> RollbackTarget {
    match &entry.resting {
        Some(version) => RollbackTarget::Resting(version.clone()),
        None => RollbackTarget::Kept(entry.hash),
    }
}
