//! Acts on the decision log: tries proposals, follows decisions, and writes again what Redis has lost.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use signalbox_redis_client::Unavailable;
use tokio::{
    task::{self, AbortHandle, JoinSet},
    time::{Instant, sleep},
};
use tracing::{debug, error, info, warn};

use super::{
    applier::{Applier, ApplyError, TriedComponent},
    decision_log::PluginEntry,
    log_text::LogText,
    sync_status::SyncStatus,
    texts::{Decision, Proposal},
    trust::{distrust_reason, is_lost},
};

/// How often the decision log is read while nothing is going on: one command per second and node.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Like [`LOOK_INTERVAL`], while a version waits for its decision: nodes may go live up to this far apart.
const LOOK_INTERVAL_IN_SWAP: Duration = Duration::from_millis(100);

/// The pause after a decision could not be followed.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The shortest time between two warnings that a plugin's entry in Redis is not trusted.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How often the expiry of a component's pieces is postponed.
const KEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// Reads the decision log, and acts on it.
pub(super) struct Reconciler {
    applier: Arc<Applier>,
    sync_status: Arc<SyncStatus>,
    plugins: BTreeMap<String, PluginProgress>,
    tasks: JoinSet<StepResult>,
    /// The plugin of each task.
    running: HashMap<task::Id, String>,
}

/// One plugin, as far as this node has followed the cluster.
#[derive(Default)]
struct PluginProgress {
    /// The last decision that this node is done with.
    decision: Option<Decision>,
    /// The decision before it, to which the cluster goes back if the version fails on probation. `None`: back to the
    /// files.
    before: Option<Decision>,
    /// Its component, for nodes that join after Redis has lost it.
    bytes: Option<Arc<[u8]>>,
    /// When the expiry of its pieces must be postponed next.
    keep_at: Option<Instant>,
    /// The ID of the last proposal that was handled.
    tried: Option<String>,
    /// The result of trying it, unless the proposal is over.
    trial: Option<TriedComponent>,
    /// The task that runs for this plugin.
    task: Option<(Step, AbortHandle)>,
    /// The earliest time to try a decision again.
    retry_at: Option<Instant>,
    /// When the log last warned that the entry in Redis is not trusted.
    complained: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Trying,
    Following,
    Keeping,
    Retracting,
}

/// The result of a task.
enum StepResult {
    Tried(TriedComponent),
    Followed {
        decision: Box<Decision>,
        result: Result<Option<Arc<[u8]>>, ApplyError>,
    },
    Kept(Result<(), Unavailable>),
    Retracted,
}

impl Reconciler {
    pub(super) fn new(applier: Applier, sync_status: Arc<SyncStatus>) -> Self {
        Self {
            applier: Arc::new(applier),
            sync_status,
            plugins: BTreeMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    /// Follows the cluster until it is dropped.
    pub(super) async fn run(&mut self) {
        let sync_status = self.sync_status.clone();
        loop {
            let plugins = self.applier.manager.names();
            match self.applier.decision_log.read_entries(&plugins).await {
                Ok(entries) => self.follow(entries),
                Err(error) => {
                    debug!(%error, "the plugin versions of the cluster are not known");
                    sync_status.could_not_look(error);
                }
            }
            let in_swap =
                |followed: &PluginProgress| followed.trial.is_some() || followed.task.is_some();
            let pause = if self.plugins.values().any(in_swap) {
                LOOK_INTERVAL_IN_SWAP
            } else {
                LOOK_INTERVAL
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = sync_status.look_now.notified() => {}
                Some(done) = self.tasks.join_next_with_id() => self.finish_task(done),
            }
        }
    }

    fn follow(&mut self, entries: BTreeMap<String, PluginEntry>) {
        let sync_status = &self.sync_status;
        self.plugins.retain(|plugin, followed| {
            let is_configured = entries.contains_key(plugin);
            if !is_configured {
                followed.stop();
                sync_status.forget(plugin);
            }
            is_configured
        });
        for (plugin, entry) in entries {
            self.step(&plugin, entry);
        }
        self.sync_status.looked();
    }

    /// Starts the next step for one plugin.
    fn step(&mut self, plugin: &str, entry: PluginEntry) {
        let now = Instant::now();
        let followed = self.plugins.entry(plugin.to_owned()).or_default();
        let doubt = distrust_reason(&entry, followed.decision.as_ref());
        if let Some(doubt) = doubt {
            followed.warn_untrusted(plugin, doubt, now);
        }
        self.sync_status.doubts(plugin, doubt);
        let own = followed.decision.as_ref();
        let decided = entry.decided.ours();
        let news = decided.filter(|decided| own.is_none_or(|own| decided.is_later_than(own)));
        let proposed = entry.proposed.any();
        if let Some((doing, task)) = &followed.task {
            let wanted = followed.tried.as_deref();
            let is_wanted = proposed.is_some_and(|proposal| wanted == Some(&proposal.id))
                || news.is_some_and(|decision| wanted == Some(&decision.id));
            if *doing == Step::Trying && !is_wanted {
                // The task is removed once it has ended.
                task.abort();
            }
            return;
        }
        if let Some(decision) = news {
            if followed.retry_at.is_none_or(|at| at <= now) {
                self.begin_following(plugin, decision.clone());
            }
            return;
        }
        match proposed {
            Some(proposal) if followed.tried.as_ref() != Some(&proposal.id) => {
                followed.tried = Some(proposal.id.clone());
                self.begin_trying(plugin, &entry.proposed, proposal.clone());
                return;
            }
            Some(_) => {}
            None => followed.trial = None,
        }
        let own = followed.decision.clone();
        let stands = own.is_some() && entry.decided.ours() == own.as_ref();
        if stands && self.begin_retracting(plugin, &entry.text) {
            return;
        }
        let Some(followed) = self.plugins.get(plugin) else {
            return;
        };
        let is_due = followed.keep_at.is_some_and(|at| at <= now);
        let is_lost = own.is_some_and(|own| is_lost(&entry.decided, &own));
        if is_lost || is_due {
            self.begin_keeping(plugin, is_lost.then_some(entry.text));
        }
    }

    fn begin_trying(&mut self, plugin: &str, found: &LogText<Proposal>, proposal: Proposal) {
        let number = self.plugins.get(plugin).map_or(0, PluginProgress::number);
        let (applier, name) = (self.applier.clone(), plugin.to_owned());
        let objection = match found {
            LogText::Ours(_) if proposal.number > number => None,
            LogText::Ours(_) => Some("it follows a newer decision; try again"),
            _ => {
                Some("the proposal is not signed with its admin.key; set the same key on all nodes")
            }
        };
        let trial = async move {
            StepResult::Tried(match objection {
                None => applier.try_out(&name, proposal, number).await,
                Some(reason) => applier.decline(&name, proposal.id, number, reason).await,
            })
        };
        self.spawn(plugin, Step::Trying, trial);
    }

    fn begin_following(&mut self, plugin: &str, decision: Decision) {
        let followed = self.plugins.entry(plugin.to_owned()).or_default();
        let trial = followed.trial.take_if(|trial| trial.id == decision.id);
        if trial.as_ref().is_some_and(|trial| trial.ready.is_none()) {
            // The others went ahead without this node, which an operator allowed.
            warn!(
                plugin,
                by = decision.by,
                "the cluster runs a version that this node refused; it keeps its own"
            );
            audit(plugin, &decision, "refused");
            self.sync_status.follows(plugin, decision.number);
            followed.decision = Some(decision);
            return;
        }
        let ready = trial.and_then(|trial| trial.ready);
        if ready.is_none() {
            let version = decision.version();
            let why = format!("the cluster runs {version}, which is not live here yet");
            self.sync_status.is_behind(plugin, why);
        }
        let (applier, name) = (self.applier.clone(), plugin.to_owned());
        let follow = async move {
            let result = applier.go_along(&name, &decision, ready).await;
            StepResult::Followed {
                decision: Box::new(decision),
                result,
            }
        };
        self.spawn(plugin, Step::Following, follow);
    }

    /// Retracts the decision for all nodes if this node has rolled its version back: what fails here fails elsewhere,
    /// and all nodes are to run the same version. Returns whether a task was started.
    fn begin_retracting(&mut self, plugin: &str, text: &Arc<[u8]>) -> bool {
        let Some(followed) = self.plugins.get(plugin) else {
            return false;
        };
        let Some(decision) = &followed.decision else {
            return false;
        };
        let component = decision.component.as_ref();
        let reason = component.and_then(|component| {
            self.applier
                .manager
                .rollback_reason(plugin, &component.sha256)
        });
        let Some(reason) = reason else {
            return false;
        };
        let before = followed.before.as_ref();
        let back_to = before.and_then(|before| before.component.clone());
        let (applier, name) = (self.applier.clone(), plugin.to_owned());
        let (last, text) = (decision.clone(), text.clone());
        let retract = async move {
            applier.retract(&name, &last, &text, back_to, &reason).await;
            StepResult::Retracted
        };
        self.spawn(plugin, Step::Retracting, retract);
        true
    }

    /// Keeps the component that this node follows and, if its decision is lost, writes that again in place of `text`.
    fn begin_keeping(&mut self, plugin: &str, text: Option<Arc<[u8]>>) {
        let Some(followed) = self.plugins.get(plugin) else {
            return;
        };
        let Some(decision) = followed.decision.clone() else {
            return;
        };
        let bytes = followed.bytes.clone();
        let (applier, name) = (self.applier.clone(), plugin.to_owned());
        let keep = async move {
            let kept = applier.keep(&name, &decision, bytes.as_deref(), text.as_deref());
            StepResult::Kept(kept.await)
        };
        self.spawn(plugin, Step::Keeping, keep);
    }

    fn spawn(
        &mut self,
        plugin: &str,
        doing: Step,
        task: impl Future<Output = StepResult> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.running.insert(handle.id(), plugin.to_owned());
        let followed = self.plugins.entry(plugin.to_owned()).or_default();
        followed.task = Some((doing, handle));
    }

    fn finish_task(&mut self, ended: Result<(task::Id, StepResult), task::JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            // Aborted, or panicked, which is logged: it is started again.
            Err(error) => (error.id(), None),
        };
        let Some(plugin) = self.running.remove(&id) else {
            return;
        };
        let Some(followed) = self.plugins.get_mut(&plugin) else {
            return;
        };
        if followed
            .task
            .as_ref()
            .is_some_and(|(_, task)| task.id() == id)
        {
            followed.task = None;
        }
        let now = Instant::now();
        match done {
            Some(StepResult::Tried(trial)) => followed.trial = Some(trial),
            Some(StepResult::Followed {
                decision,
                result: Ok(bytes),
            }) => {
                audit(&plugin, &decision, "live");
                followed.keep_at = bytes.as_ref().map(|_| now + KEEP_INTERVAL);
                followed.bytes = bytes;
                followed.retry_at = None;
                self.sync_status.follows(&plugin, decision.number);
                followed.before = followed.decision.replace(*decision);
            }
            Some(StepResult::Followed {
                decision,
                result: Err(error),
            }) => {
                followed.retry_at = Some(now + RETRY_PAUSE);
                let version = decision.version();
                error!(
                    plugin,
                    version,
                    by = decision.by,
                    "this node cannot follow the cluster: {error}; it tries again"
                );
                let why = format!("the cluster runs {version}, which cannot go live here: {error}");
                self.sync_status.is_behind(&plugin, why);
            }
            Some(StepResult::Kept(kept)) => {
                if let Err(error) = kept {
                    debug!(plugin, %error, "the version that the cluster runs is not stored in Redis");
                }
                followed.keep_at = followed.bytes.as_ref().map(|_| now + KEEP_INTERVAL);
            }
            Some(StepResult::Retracted) | None => {}
        }
    }
}

impl PluginProgress {
    fn number(&self) -> u64 {
        self.decision.as_ref().map_or(0, |decision| decision.number)
    }

    fn stop(&self) {
        if let Some((_, task)) = &self.task {
            task.abort();
        }
    }

    /// Logs the doubt, but only now and then: the author of the entry may write it again and again.
    fn warn_untrusted(&mut self, plugin: &str, doubt: &'static str, now: Instant) {
        if self
            .complained
            .is_some_and(|at| now - at < COMPLAINT_INTERVAL)
        {
            return;
        }
        self.complained = Some(now);
        warn!(
            plugin,
            "the decision about the plugin in Redis is not followed: {doubt}. Check that all nodes have the same \
             admin.key, and who can write to this Redis"
        );
    }
}

/// Records in the audit log who made this node change what it runs.
fn audit(plugin: &str, decision: &Decision, outcome: &str) {
    let (number, version) = (decision.number, decision.version());
    info!(
        target: "signalbox::audit",
        action = "follow the cluster",
        object = plugin,
        outcome,
        number,
        version,
        by = decision.by,
        who = decision.who,
        "follow the cluster {plugin:?}: {outcome}"
    );
}
