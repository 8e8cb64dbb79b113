//! How far this node has followed the cluster.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use signalbox_redis_client::Unavailable;
use tokio::{sync::Notify, time::Instant};

use crate::PluginSyncStatus;

/// The age of the last read after which it is unknown what the cluster runs: the same as for the broker's own health.
const LOOK_AGE_MAX: Duration = Duration::from_secs(3);

/// This node's state with regard to all plugins.
#[derive(Default)]
pub(super) struct SyncStatus {
    state: Mutex<State>,
    /// Notified to have the reconciler read the decision log at once.
    pub(super) look_now: Notify,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    away: Option<Unavailable>,
    plugins: BTreeMap<String, PluginSyncStatus>,
}

impl SyncStatus {
    /// Checks whether this node runs what the cluster decided. Only texts that were sealed with the key count as
    /// decisions.
    pub(super) fn check(&self) -> Result<(), String> {
        let state = self.state();
        if state
            .looked
            .is_none_or(|looked| looked.elapsed() > LOOK_AGE_MAX)
        {
            let reason = state.away.as_ref().map(|error| format!(": {error}"));
            let reason = reason.unwrap_or_default();
            return Err(format!(
                "it is not known which plugin versions the cluster runs{reason}"
            ));
        }
        let behind = |(plugin, sync_status): (&String, &PluginSyncStatus)| {
            let why = sync_status.behind.as_ref()?;
            Some(format!("plugin {plugin}: {why}"))
        };
        state.plugins.iter().find_map(behind).map_or(Ok(()), Err)
    }

    /// All plugins with something to report.
    pub(super) fn plugins(&self) -> BTreeMap<String, PluginSyncStatus> {
        let state = self.state();
        let statuses = state.plugins.iter();
        let statuses =
            statuses.filter(|(_, sync_status)| **sync_status != PluginSyncStatus::default());
        statuses
            .map(|(plugin, sync_status)| (plugin.clone(), sync_status.clone()))
            .collect()
    }

    /// The number of the last decision about `plugin` that this node is done with; 0 for none.
    pub(super) fn number(&self, plugin: &str) -> u64 {
        let state = self.state();
        state
            .plugins
            .get(plugin)
            .map_or(0, |sync_status| sync_status.number)
    }

    pub(super) fn looked(&self) {
        let mut state = self.state();
        state.looked = Some(Instant::now());
        state.away = None;
    }

    pub(super) fn could_not_look(&self, error: Unavailable) {
        self.state().away = Some(error);
    }

    pub(super) fn follows(&self, plugin: &str, number: u64) {
        self.with(plugin, |sync_status| {
            sync_status.number = number;
            sync_status.behind = None;
        });
    }

    pub(super) fn is_behind(&self, plugin: &str, why: String) {
        self.with(plugin, |sync_status| sync_status.behind = Some(why));
    }

    pub(super) fn doubts(&self, plugin: &str, doubt: Option<&'static str>) {
        self.with(plugin, |sync_status| sync_status.doubt = doubt);
    }

    pub(super) fn forget(&self, plugin: &str) {
        self.state().plugins.remove(plugin);
    }

    fn with(&self, plugin: &str, change: impl FnOnce(&mut PluginSyncStatus)) {
        change(self.state().plugins.entry(plugin.to_owned()).or_default());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
