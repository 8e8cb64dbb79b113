//! Which versions are live, and how that changes: all at once, or not at all.
//!
//! [`Registry::apply`] brings what is live to what the files and the configuration say: a [`reload`], plugin by plugin by
//! [`attempt`], and by [`resume`] where an earlier process left something. What operators do by hand is in [`operations`]
//! and [`back`], what they are shown in [`view`], what is remembered for both in [`record`], and what of that is on disk
//! in [`keep`]. A version that went live is watched by [`probation`], after the rules of [`judge`]; one that is tried first,
//! in [`rollout`], too. Messages take the set by a [`visit`], and [`handover`] is the step before a `single` plugin is swapped.

mod attempt;
mod back;
mod change;
mod handover;
mod judge;
mod keep;
mod operations;
mod probation;
mod record;
mod reload;
mod report;
mod resume;
mod rollout;
mod trigger;
mod view;
mod visit;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tracing::{Instrument, Span, info, info_span};

use self::{
    attempt::{Look, Newcomer, NotAdmitted, Origin, Tried},
    probation::Trial,
    record::{Hold, Records},
    reload::{Attempt, Place, Reload},
};
use super::{
    handover::HandedOver,
    loader::{LoadError, Loader},
    set::{PluginSet, Slot},
    version::PluginVersion,
    versions::{Versions, crash_point},
};
use crate::{
    config::{PluginConfig, PluginVersionsConfig, ProbationConfig},
    metrics::Metrics,
};

pub use change::{Change, ChangeError, Unchanged};
pub use operations::{Admitted, Push};
pub use trigger::Trigger;
pub use view::{CallFailure, PluginView, VersionView};
pub use visit::Visit;

/// What lines of the log about a swap stand in, from its beginning until it is known how it ends.
fn swap_span(plugin: &str, trigger: Trigger) -> Span {
    info_span!("swap", plugin, trigger = trigger.as_str())
}

/// Versions that can be gone back to where nothing else is said.
const KEEP: usize = 5;

/// Holds the live set. One reload or operation runs at a time; within a reload, plugins are read, compiled and tried out
/// beside each other.
pub struct Registry {
    live: ArcSwap<PluginSet>,
    loader: Loader,
    metrics: Arc<Metrics>,
    records: Records,
    /// None: nothing is kept on disk.
    versions: Option<Versions>,
    /// Versions that can be gone back to, beside the one that is live. Each keeps its compiled code, and no instance.
    keep: usize,
    /// The rules that versions are judged by.
    probation: ArcSwap<ProbationConfig>,
    /// Told when a version has to prove itself.
    trials: Notify,
    /// Held for as long as it takes to put another set in the place of the one that is live, never across an `await`.
    switch: Mutex<()>,
    turn: tokio::sync::Mutex<()>,
}

impl Registry {
    /// With no plugin in it, and what was live in memory alone.
    pub fn new(loader: Loader, metrics: Arc<Metrics>) -> Self {
        let live = ArcSwap::from_pointee(PluginSet::default());
        Self {
            live,
            loader,
            metrics,
            records: Records::default(),
            versions: None,
            keep: KEEP,
            probation: ArcSwap::default(),
            trials: Notify::new(),
            switch: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// The same, which keeps what was live as `config` says.
    #[must_use]
    pub fn keeping(self, config: &PluginVersionsConfig) -> Self {
        Self {
            versions: config.dir.as_deref().map(Versions::new),
            keep: config.keep,
            ..self
        }
    }

    /// The set that is live now, to look at. Messages go through [`Registry::enter`].
    pub fn live(&self) -> Arc<PluginSet> {
        self.live.load_full()
    }

    /// Brings the live set to `configs`, reading every file anew. A plugin whose new version is refused keeps the
    /// version that it had, and so does one whose file an operator passed over. Returns the refusals.
    ///
    /// A changed configuration becomes live as a whole. Where only files changed, each plugin becomes live as soon as
    /// it can, so that one that compiles for seconds holds up no other.
    pub async fn apply(
        &self,
        configs: &[PluginConfig],
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Vec<(String, LoadError)> {
        let _turn = self.turn.lock().await;
        for config in configs {
            self.recall(&config.name).await;
        }
        let mut refusals = self.round(configs, file_bytes_max, trigger).await;
        if trigger == Trigger::Start && configs.iter().any(|config| config.rollout.is_some()) {
            // What changed while the server was down is tried beside what was live, which is live by now.
            let tried = self.round(configs, file_bytes_max, Trigger::File);
            refusals.extend(tried.await);
        }
        // Also where nothing went live: that a file was looked at is worth keeping.
        for config in configs {
            self.keep(&config.name, None);
        }
        refusals
    }

    async fn round(
        &self,
        configs: &[PluginConfig],
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Vec<(String, LoadError)> {
        let old = self.live();
        let place = |config: &PluginConfig| Place {
            config: Arc::new(config.clone()),
            current: old.find(&config.name).and_then(Slot::version).cloned(),
            rollout: old.find(&config.name).and_then(Slot::rollout).cloned(),
            attempt: Attempt::UnderWay,
        };
        let mut reload = Reload {
            trigger,
            began: Instant::now(),
            places: configs.iter().map(place).collect(),
            refusals: Vec::new(),
        };
        let attempts: FuturesUnordered<_> = reload
            .places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                let (config, current) = (place.config.clone(), place.current.clone());
                let rollout = place.rollout.clone();
                let swap = swap_span(&config.name, trigger);
                let tried = async move {
                    let look = Look {
                        config: &config,
                        current: current.as_ref(),
                        rollout: rollout.as_deref(),
                        file_bytes_max,
                        trigger,
                        force: false,
                    };
                    (index, self.attempt(&look).await)
                };
                tried.instrument(swap)
            })
            .collect();
        let mut attempts = attempts;
        while let Some((index, tried)) = attempts.next().await {
            self.take(&mut reload, index, tried);
            // With a conflict it waits for the others, whose new versions may have none.
            if trigger == Trigger::File && reload.conflict().is_none() {
                self.go_live(&mut reload).await;
            }
        }
        self.settle_conflicts(&mut reload);
        self.go_live(&mut reload).await;
        self.report_removed(&old, configs, trigger);
        reload.refusals
    }

    fn take(&self, reload: &mut Reload, index: usize, tried: Result<Tried, NotAdmitted>) {
        match tried {
            Ok(Tried::New(new)) => reload.places[index].attempt = Attempt::Ready(Box::new(new)),
            Ok(Tried::Same(_)) => reload.places[index].attempt = Attempt::Over,
            Err(refused) => self.drop_out(reload, index, refused),
        }
    }

    /// Takes a plugin out of the reload: what is live of it stays.
    fn drop_out(&self, reload: &mut Reload, index: usize, refused: NotAdmitted) {
        let place = &mut reload.places[index];
        place.attempt = Attempt::Over;
        let error = self.refuse(place, refused, reload.trigger);
        reload.refusals.push((place.config.name.clone(), error));
    }

    fn settle_conflicts(&self, reload: &mut Reload) {
        while let Some(conflict) = reload.conflict() {
            let error = LoadError::Conflict {
                pattern: conflict.pattern,
                other: reload.places[conflict.other].config.name.clone(),
            };
            let hash = reload.places[conflict.refused]
                .next()
                .map(|new| *new.hash());
            self.drop_out(reload, conflict.refused, NotAdmitted { hash, error });
        }
    }

    /// Makes everything live that is ready, by one store, with the state of `single` plugins.
    async fn go_live(&self, reload: &mut Reload) {
        for place in &mut reload.places {
            self.pass_over(place, reload.began);
        }
        let handed_over = self.hand_over(reload).await;
        let switch = self.switch();
        let live = self.live();
        for place in &mut reload.places {
            // The state of a `single` plugin is with the new version by now, and going back waits for that.
            if place.next().is_none_or(|next| next.door().is_none()) {
                self.pass_over(place, reload.began);
            }
            place.look_again(&live, reload.trigger);
        }
        let slots = reload.places.iter().map(|place| {
            let (version, rollout) = (place.next().cloned(), place.rollout.clone());
            Slot::new(place.config.clone(), version, rollout)
        });
        let set = PluginSet::new(slots.collect());
        let (trigger, began) = (reload.trigger, reload.began);
        let crash_point = |step| {
            if trigger != Trigger::Start {
                crash_point(step);
            }
        };
        crash_point("admitted");
        self.store_live(set);
        // Only now: messages that were held look for what is live.
        handed_over.into_iter().for_each(HandedOver::end);
        crash_point("live");
        for place in &mut reload.places {
            match std::mem::replace(&mut place.attempt, Attempt::Over) {
                Attempt::Ready(new) => {
                    let old = place.current.replace(new.version.clone());
                    self.remember(&place.config, &new, old.as_deref(), trigger);
                    self.report_swap(old.as_deref(), &new.version, trigger, began);
                    if let Some(not_admitted) = new.instead_of {
                        self.refuse(place, not_admitted, trigger);
                    }
                    self.keep(&place.config.name, new.component);
                }
                Attempt::Candidate(new) => {
                    if let Some(rollout) = &place.rollout {
                        let plugin = &place.config.name;
                        self.remember_candidate(plugin, rollout, *new, trigger);
                    }
                }
                other => place.attempt = other,
            }
        }
        drop(switch);
    }

    /// Gives up what the file of a plugin holds if an operator went back while it was being loaded.
    fn pass_over(&self, place: &mut Place, began: Instant) {
        let name = &place.config.name;
        let is_of_file = matches!(
            &place.attempt,
            Attempt::Ready(new) if new.origin == Origin::File && !new.insisted
        );
        let gone_back = self.records.with(name, |record| record.gone_back);
        if is_of_file && gone_back.is_some_and(|at| at > began) {
            info!(
                plugin = name,
                "the file is passed over: an operator went back while it was being loaded"
            );
            place.attempt = Attempt::Over;
        }
    }

    /// For who puts another set live: what is live does not change meanwhile.
    fn switch(&self) -> MutexGuard<'_, ()> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one store. Whoever calls it holds the switch.
    fn store_live(&self, set: PluginSet) {
        self.metrics.messages_by_type.know(set.named_types());
        self.live.store(Arc::new(set));
    }

    fn remember(
        &self,
        config: &Arc<PluginConfig>,
        new: &Newcomer,
        old: Option<&PluginVersion>,
        trigger: Trigger,
    ) {
        let watched = new.watched && !self.probation.load().time.is_zero();
        let trial = old
            .filter(|_| watched)
            .map(|old| Trial::begin(&new.version, old));
        let is_on_trial = trial.is_some();
        self.records.with(&config.name, |record| {
            record.went_live(&new.version, trigger, self.keep);
            if let Some(live) = record.stints.front_mut() {
                live.trial = trial;
            }
            record.hold = (new.origin == Origin::Operator).then(|| Hold {
                file: record.file.clone(),
                config: config.clone(),
            });
        });
        if is_on_trial {
            self.trials.notify_one();
        }
    }
}
