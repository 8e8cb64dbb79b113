//! Stores the part of a record that is kept on disk, and restores it.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Registry,
    record::{End, Recalled, Record, Stint},
    rollout::Candidate,
};
use crate::plugin::versions::{Earlier, Kept, State};

impl Registry {
    /// Restores the state that an earlier process kept of the plugin, the first time that the plugin is examined.
    pub(super) async fn recall(&self, plugin: &str) {
        let Some(versions) = &self.versions else {
            return;
        };
        if self.records.with(plugin, |record| {
            std::mem::replace(&mut record.looked_up, true)
        }) {
            return;
        }
        if let Some(state) = versions.recall(plugin).await {
            self.records.with(plugin, |record| record.take_over(state));
        }
    }

    /// Queues the plugin's current state to be written, if it has changed. `component`: the bytes of the live version,
    /// if they may not be on disk yet. Does not wait.
    pub(super) fn keep(&self, plugin: &str, component: Option<Arc<[u8]>>) {
        let Some(versions) = &self.versions else {
            return;
        };
        let state = self.records.with(plugin, |record| {
            let state = record.state()?;
            let news = record.kept.as_ref() != Some(&state);
            record.kept = Some(state.clone());
            news.then_some(state)
        });
        if let Some(state) = state {
            versions.keep(plugin, state, component);
        }
    }

    /// Waits, for a bounded time, until the state of all plugins is on disk.
    pub async fn kept(&self) {
        if let Some(versions) = &self.versions {
            versions.settled().await;
        }
    }

    /// Why the plugin's live version would not be live after a restart; `None` if it would.
    pub(super) fn not_kept(&self, plugin: &str) -> Option<String> {
        match &self.versions {
            Some(versions) => versions.failure(plugin),
            None => Some("plugin_versions.dir is empty".to_owned()),
        }
    }

    /// Whether the plugin's live version should be kept on disk, but could not be written.
    pub fn fails_to_keep(&self, plugin: &str) -> bool {
        let versions = self.versions.as_ref();
        versions.is_some_and(|versions| versions.failure(plugin).is_some())
    }
}

impl Record {
    /// The state to keep; `None` while nothing is live.
    fn state(&self) -> Option<State> {
        let live = self.stints.front().filter(|stint| stint.is_live())?;
        let of_file = self.candidate.as_ref().is_some_and(Candidate::is_of_file);
        let file = match (&self.file, &self.kept) {
            // The file's candidate is not decided yet, so a restart treats the file as changed.
            (_, Some(kept)) if of_file => kept.file.map(|file| file.0),
            (Some(Ok(hash)), _) => Some(*hash),
            _ => None,
        };
        let mut state = State::new(live.as_kept(), file, self.hold.is_some());
        let earlier = self.stints.iter().filter_map(|stint| {
            Some(Earlier {
                version: stint.as_kept(),
                until: stint.end?.at,
                rolled_back: stint.end?.rolled_back,
            })
        });
        // A component with two configurations is kept only once, because configurations are not kept.
        for earlier in earlier {
            let sha256 = earlier.version.sha256;
            let known = |other: &Earlier| other.version.sha256 == sha256;
            if sha256 != state.live.sha256 && !state.earlier.iter().any(known) {
                state.earlier.push(earlier);
            }
        }
        state.rolled_back = self.rolled_back.clone();
        Some(state)
    }

    fn take_over(&mut self, state: State) {
        self.recalled = Some(Recalled {
            live: state.live.sha256.0,
            file: state.file.map(|file| file.0),
            held: state.held,
            earlier: state
                .earlier
                .iter()
                .filter(|earlier| !earlier.rolled_back)
                .map(|earlier| earlier.version.sha256.0)
                .collect(),
        });
        let live = Stint::recalled(&state.live, None);
        let earlier = state.earlier.iter().map(|earlier| {
            let end = End {
                at: earlier.until,
                rolled_back: earlier.rolled_back,
            };
            Stint::recalled(&earlier.version, Some(end))
        });
        self.stints = [live].into_iter().chain(earlier).collect::<VecDeque<_>>();
        self.rolled_back = state.rolled_back.clone();
        self.kept = Some(state);
    }
}

impl Stint {
    fn as_kept(&self) -> Kept {
        Kept {
            sha256: self.hash,
            config: self.config,
            semver: self.semver.clone(),
            since: self.since,
            trigger: self.trigger,
        }
    }
}
