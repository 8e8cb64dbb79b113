//! What of a record is kept on disk, and how it comes back.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Registry,
    record::{End, Recalled, Record, Stint},
    rollout::Candidate,
};
use crate::plugin::versions::{Earlier, Kept, State};

impl Registry {
    /// Takes over what an earlier process knew of the plugin, the first time that it is looked at.
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

    /// Has what is known of the plugin now written, where that is news. `component`: the bytes of the live version, where
    /// they may not be kept yet. Does not wait.
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

    /// Waits, for a bounded time, until what is known of the plugins is on disk.
    pub async fn kept(&self) {
        if let Some(versions) = &self.versions {
            versions.settled().await;
        }
    }

    /// Why what is live of the plugin would not be live after a restart; none: it would.
    pub(super) fn not_kept(&self, plugin: &str) -> Option<String> {
        match &self.versions {
            Some(versions) => versions.failure(plugin),
            None => Some("plugin_versions.dir is empty".to_owned()),
        }
    }

    /// Whether what is live of the plugin is to be kept, and the disk does not take it.
    pub fn fails_to_keep(&self, plugin: &str) -> bool {
        let versions = self.versions.as_ref();
        versions.is_some_and(|versions| versions.failure(plugin).is_some())
    }
}

impl Record {
    /// What is to be kept; none while nothing is live.
    fn state(&self) -> Option<State> {
        let live = self.stints.front().filter(|stint| stint.is_live())?;
        let of_file = self.candidate.as_ref().is_some_and(Candidate::is_of_file);
        let file = match (&self.file, &self.kept) {
            // Not dealt with yet: a restart looks at it as at one that has changed.
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
        // One component with two configurations is kept once: configurations are not.
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
