//! Stores the part of a record that is kept on disk, and restores it.

use std::{collections::VecDeque, mem, sync::Arc};

use super::{
    PluginManager,
    plugin_history::{PersistedHistory, PluginHistory, VersionEnd, VersionEntry},
    state::State,
    trial::Candidate,
};
use crate::history::{EarlierVersion, KeptVersion, PersistedState};

impl PluginManager {
    /// Restores the state that an earlier process kept of the plugin, the first time that the plugin is examined.
    pub(super) async fn recall(&self, plugin: &str) {
        let Some(store) = &self.store else {
            return;
        };
        let looked_up = mem::replace(&mut self.state().history(plugin).looked_up, true);
        if !looked_up && let Some(persisted) = store.recall(plugin).await {
            self.state().history(plugin).take_over(persisted);
        }
    }

    /// Waits, for a bounded time, until the state of all plugins is on disk.
    pub async fn kept(&self) {
        if let Some(store) = &self.store {
            store.flushed().await;
        }
    }

    /// Why the plugin's live version would not be live after a restart; `None` if it would.
    pub(super) fn not_kept(&self, plugin: &str) -> Option<String> {
        match &self.store {
            Some(store) => store.failure(plugin),
            None => Some("plugin_versions.dir is empty".to_owned()),
        }
    }

    /// Whether the plugin's live version should be kept on disk, but could not be written.
    pub fn fails_to_keep(&self, plugin: &str) -> bool {
        let store = self.store.as_ref();
        store.is_some_and(|store| store.failure(plugin).is_some())
    }
}

impl State {
    /// Queues the plugin's current state to be written, if it has changed. `component`: the bytes of the live version,
    /// if they may not be on disk yet. Does not wait.
    pub(super) fn persist(&mut self, plugin: &str, component: Option<Arc<[u8]>>) {
        let Some(store) = self.store.clone() else {
            return;
        };
        let history = self.history(plugin);
        let Some(state) = history.state() else {
            return;
        };
        if history.kept.as_ref() != Some(&state) {
            history.kept = Some(state.clone());
            store.keep(plugin, state, component);
        }
    }
}

impl PluginHistory {
    /// The state to keep; `None` while nothing is live.
    fn state(&self) -> Option<PersistedState> {
        let live = self.entries.front().filter(|entry| entry.is_live())?;
        let of_file = self.candidate.as_ref().is_some_and(Candidate::is_of_file);
        let file = match (&self.file, &self.kept) {
            // The file's candidate is not decided yet, so a restart treats the file as changed.
            (_, Some(kept)) if of_file => kept.file,
            (Some(Ok(hash)), _) => Some(*hash),
            _ => None,
        };
        let mut state = PersistedState::new(live.as_kept(), file, self.pin.is_some());
        let earlier = self.entries.iter().filter_map(|entry| {
            Some(EarlierVersion {
                version: entry.as_kept(),
                until: entry.end?.at,
                rolled_back: entry.end?.rolled_back,
            })
        });
        // A component with two configurations is kept only once, because configurations are not kept.
        for earlier in earlier {
            let sha256 = earlier.version.sha256;
            let known = |other: &EarlierVersion| other.version.sha256 == sha256;
            if sha256 != state.live.sha256 && !state.earlier.iter().any(known) {
                state.earlier.push(earlier);
            }
        }
        state.rolled_back = self.rolled_back.clone();
        Some(state)
    }

    fn take_over(&mut self, state: PersistedState) {
        self.recalled = Some(PersistedHistory {
            live: state.live.sha256,
            file: state.file,
            held: state.held,
            earlier: state
                .earlier
                .iter()
                .filter(|earlier| !earlier.rolled_back)
                .map(|earlier| earlier.version.sha256)
                .collect(),
        });
        let live = VersionEntry::recalled(&state.live, None);
        let earlier = state.earlier.iter().map(|earlier| {
            let end = VersionEnd {
                at: earlier.until,
                rolled_back: earlier.rolled_back,
            };
            VersionEntry::recalled(&earlier.version, Some(end))
        });
        self.entries = [live].into_iter().chain(earlier).collect::<VecDeque<_>>();
        self.rolled_back = state.rolled_back.clone();
        self.kept = Some(state);
    }
}

impl VersionEntry {
    fn as_kept(&self) -> KeptVersion {
        KeptVersion {
            sha256: self.id.hash,
            config: self.id.config,
            semver: self.semver.clone(),
            since: self.since,
            trigger: self.trigger,
        }
    }
}
