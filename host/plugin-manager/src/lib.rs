//! The live plugin versions and how they change: all at once, or not at all.
//!
//! [`PluginManager`] owns the [`state`]: the live set and a [record](plugin_history) of each plugin. A change of versions
//! has four steps. [`plan`] decides by the state, without side effects, which version a plugin should get; [`load`]
//! reads, compiles and admits it; [`handover`] carries the state of a `single` plugin over; [`state`] commits it. That is
//! a [`reload`] for the plugin files and the configuration, and an [operation](operations) for a push or a rollback.
//! [`probation`] watches a version that went live, by the rules of [`judge`], and also a version that is tried first
//! ([`rollout`]). [`persist`] keeps the records on disk, [`view`] has the reports for operators. Messages enter the live
//! set through a [`snapshot`], and never wait for any of this except a handover.

mod change;
mod handover;
mod history;
mod judge;
mod load;
mod operations;
mod persist;
mod plan;
mod plugin_history;
mod probation;
mod reload;
mod report;
mod rollout;
mod snapshot;
mod state;
mod trial;
mod trigger;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
pub use change::{Change, ChangeError, Unchanged};
pub use history::FLUSH_TIME_MAX;
pub use operations::{AdmittedComponent, PushOptions};
use signalbox_config::PluginVersionsConfig;
use signalbox_plugin_runtime::{Loader, PluginSet};
use signalbox_telemetry::metrics::Metrics;
pub use snapshot::PluginSnapshot;
use tokio::sync::Notify;
use tracing::{Span, info_span};
pub use trigger::Trigger;
pub use view::{CallFailure, PluginView, VersionView};

use self::state::State;
use crate::history::HistoryStore;

/// The tracing span for the log lines of a swap, from its start until its outcome is known.
fn swap_span(plugin: &str, trigger: Trigger) -> Span {
    info_span!("swap", plugin, trigger = trigger.as_str())
}

/// Holds the plugins. One reload or operation runs at a time, except that a rollback waits for neither. Within a reload,
/// plugins are read, compiled and tried out concurrently.
pub struct PluginManager {
    state: Mutex<State>,
    /// The set that messages go through. Only the state stores to it.
    published: Arc<ArcSwap<PluginSet>>,
    loader: Loader,
    /// `None` if nothing is kept on disk.
    store: Option<HistoryStore>,
    metrics: Arc<Metrics>,
    /// Notified when a version goes on trial.
    trials: Arc<Notify>,
    /// Held by the reload or operation that runs.
    turn: tokio::sync::Mutex<()>,
}

impl PluginManager {
    /// Creates a manager without plugins, which keeps earlier versions in memory only.
    pub fn new(loader: Loader, metrics: Arc<Metrics>) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(PluginSet::default()));
        let trials = Arc::new(Notify::new());
        let state = State::new(published.clone(), metrics.clone(), trials.clone());
        Self {
            state: Mutex::new(state),
            published,
            loader,
            store: None,
            metrics,
            trials,
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns the manager, set up to keep earlier versions as `config` says.
    #[must_use]
    pub fn keeping(self, config: &PluginVersionsConfig) -> Self {
        let store = config.dir.as_deref().map(HistoryStore::new);
        let mut state = self.state();
        state.keep = config.keep;
        state.store = store.clone();
        drop(state);
        Self { store, ..self }
    }

    /// Locks the state. The guard must not be held across an `await`.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current live set, for inspection. Messages use [`PluginManager::enter`].
    pub fn live(&self) -> Arc<PluginSet> {
        self.published.load_full()
    }

    /// The names of all plugins, in the order of the chain.
    pub fn names(&self) -> Vec<String> {
        let live = self.live();
        let slots = live.slots().iter();
        slots.map(|slot| slot.config().name.clone()).collect()
    }

    /// Whether a plugin with this name is configured on this node.
    pub fn is_configured(&self, plugin: &str) -> bool {
        self.live().find(plugin).is_some()
    }
}
