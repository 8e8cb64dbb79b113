//! The state of all plugins: the live set, the records, and the rules of the trials.
//!
//! [`State`] has one owner, the [`PluginManager`](super::PluginManager), which locks it for each transition and never
//! across an `await`. Work that takes time, such as reading, compiling and handing over, happens between two
//! transitions: [`plan`](super::plan) decides on it by the state at that moment, and the transition that ends it goes by the state
//! that it finds. A lock serves better than a task with a mailbox: callers that give up leave nothing behind, reports
//! read the state without a round trip, and it works in programs without a running server. The transitions of trials
//! are in [`rollout`](super::rollout) and [`probation`](super::probation), those of reports in
//! [`report`](super::report), and the part of the state that is on disk in [`persist`](super::persist).

use std::{collections::BTreeMap, mem, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use signalbox_config::{PluginConfig, ProbationConfig};
use signalbox_plugin_runtime::{
    PluginSet, PluginSlot, PluginVersion, Rollout, handover::HandedOver,
};
use signalbox_telemetry::metrics::Metrics;
use tokio::sync::Notify;

use super::{
    Trigger, Unchanged,
    load::LoadedVersion,
    plan::{Activation, Observed, Plan},
    plugin_history::{Content, Pin, PluginHistory, VersionId},
    reload::{Progress, Reload},
    trial::Trial,
    trigger::Origin,
};
use crate::history::{HistoryStore, crash_point};

/// The default number of earlier versions that are kept for a rollback.
const KEEP: usize = 5;

pub(super) struct State {
    /// The set that messages go through. Only [`State::publish`] stores to it.
    published: Arc<ArcSwap<PluginSet>>,
    pub(super) histories: BTreeMap<String, PluginHistory>,
    /// `None` if nothing is kept on disk.
    pub(super) store: Option<HistoryStore>,
    /// How many earlier versions are kept for a rollback, in addition to the live one. Each keeps its compiled code,
    /// but no instances.
    pub(super) keep: usize,
    /// The rules by which versions on trial are judged.
    pub(super) rules: ProbationConfig,
    pub(super) metrics: Arc<Metrics>,
    /// Notified when a version goes on trial.
    pub(super) trials: Arc<Notify>,
}

impl State {
    /// Creates a state without plugins, which keeps nothing on disk.
    pub(super) fn new(
        published: Arc<ArcSwap<PluginSet>>,
        metrics: Arc<Metrics>,
        trials: Arc<Notify>,
    ) -> Self {
        Self {
            published,
            histories: BTreeMap::new(),
            store: None,
            keep: KEEP,
            rules: ProbationConfig::default(),
            metrics,
            trials,
        }
    }

    /// The record of `plugin`, which starts empty.
    pub(super) fn history(&mut self, plugin: &str) -> &mut PluginHistory {
        self.histories.entry(plugin.to_owned()).or_default()
    }

    pub(super) fn live(&self) -> Arc<PluginSet> {
        self.published.load_full()
    }

    pub(super) fn live_version(&self, plugin: &str) -> Option<Arc<PluginVersion>> {
        self.live().live_version(plugin).cloned()
    }

    /// Replaces the live set.
    fn publish(&mut self, slots: Vec<PluginSlot>) {
        let set = PluginSet::new(slots);
        self.metrics.messages_by_type.know(set.named_types());
        self.published.store(Arc::new(set));
    }

    /// Gives `plugin` another version and rollout, and leaves all other plugins as they are.
    pub(super) fn replace(
        &mut self,
        plugin: &str,
        version: Option<Arc<PluginVersion>>,
        rollout: Option<Arc<Rollout>>,
    ) {
        let live = self.live();
        let slots = live.slots().iter().map(|slot| {
            if slot.config().name == plugin {
                PluginSlot::new(slot.config().clone(), version.clone(), rollout.clone())
            } else {
                slot.clone()
            }
        });
        self.publish(slots.collect());
    }

    /// The state on which decisions about the plugin of `config` depend.
    pub(super) fn observe<'a>(
        &'a mut self,
        config: &'a Arc<PluginConfig>,
        trigger: Trigger,
    ) -> Observed<'a> {
        let live = self.live();
        let slot = live.find(&config.name);
        let version = slot.and_then(PluginSlot::version);
        let rollout = slot.and_then(PluginSlot::rollout);
        Observed {
            config,
            live: version.map(|version| VersionId::of(version)),
            on_trial: rollout.map(|rollout| VersionId::of(rollout.candidate())),
            history: self.history(&config.name),
            trigger,
        }
    }

    /// Records the content of the plugin's file, and decides what to do about it.
    pub(super) fn plan_file(
        &mut self,
        config: &Arc<PluginConfig>,
        content: &Content,
        force: bool,
        trigger: Trigger,
    ) -> Plan {
        let plan = self.observe(config, trigger).plan_file(content, force);
        let history = self.history(&config.name);
        history.file = Some(content.clone());
        if plan != Plan::Keep(Unchanged::Refused) {
            history.refused = None;
        }
        plan
    }

    /// Discards the new versions in `reload` that an operator's rollback has overtaken.
    pub(super) fn discard_overtaken(&mut self, reload: &mut Reload) {
        for entry in &mut reload.entries {
            if let Progress::Ready(new) = &entry.progress {
                let loaded = new.activated_by(reload.began, false);
                let observed = self.observe(&entry.config, reload.trigger);
                if observed.plan_activation(loaded) == Activation::Discard {
                    entry.discard();
                }
            }
        }
    }

    /// Puts every version in `reload` into service that is ready, with one store to the live set.
    pub(super) fn commit(&mut self, reload: &mut Reload, handed_over: Vec<HandedOver>) {
        let live = self.live();
        for entry in &mut reload.entries {
            entry.observe(&live, reload.layout);
            let Progress::Ready(new) = &entry.progress else {
                continue;
            };
            // By now it has the state of a `single` plugin.
            let loaded = new.activated_by(reload.began, new.version.gate().is_some());
            let observed = self.observe(&entry.config, reload.trigger);
            match observed.plan_activation(loaded) {
                Activation::Live => entry.go_live(),
                Activation::Trial(config) => entry.begin_trial(config),
                Activation::Discard => entry.discard(),
            }
        }
        let is_start = reload.trigger == Trigger::Start;
        let crash_point = |step| {
            if !is_start {
                crash_point(step);
            }
        };
        crash_point("admitted");
        self.publish(reload.slots(&live));
        // Not earlier: once released, held messages look up the live set.
        handed_over.into_iter().for_each(HandedOver::end);
        crash_point("live");
        for entry in &mut reload.entries {
            match mem::replace(&mut entry.progress, Progress::Unchanged) {
                Progress::Ready(new) => {
                    let old = entry.current.replace(new.version.clone());
                    self.went_live(
                        &entry.config,
                        *new,
                        old.as_deref(),
                        reload.trigger,
                        reload.began,
                    );
                    entry.progress = Progress::Live;
                }
                Progress::Candidate(new, rollout) => {
                    self.trial_began(&entry.config.name, &rollout, *new, reload.trigger);
                    entry.progress = Progress::OnTrial;
                }
                other => entry.progress = other,
            }
        }
    }

    /// Records and reports that `new` has replaced `old`.
    pub(super) fn went_live(
        &mut self,
        config: &Arc<PluginConfig>,
        new: LoadedVersion,
        old: Option<&PluginVersion>,
        trigger: Trigger,
        began: Instant,
    ) {
        let keep = self.keep;
        let trial = old
            .filter(|_| new.watched && !self.rules.time.is_zero())
            .map(|old| Trial::begin(&new.version, old));
        if trial.is_some() {
            self.trials.notify_one();
        }
        let history = self.history(&config.name);
        history.went_live(&new.version, trigger, keep);
        if let Some(live) = history.entries.front_mut() {
            live.trial = trial;
        }
        history.pin = (new.origin == Origin::Operator).then(|| Pin {
            file: history.file.clone(),
            config: config.clone(),
        });
        if trigger == Trigger::Rollback {
            history.gone_back = Some(Instant::now());
        }
        self.report_swap(old, &new.version, trigger, began);
        if let Some(not_loaded) = new.instead_of {
            self.refuse(config, Some(&new.version), not_loaded, trigger);
        }
        self.persist(&config.name, new.component);
    }
}
