//! What one node does about the board: tries what is proposed, follows what is decided, and writes down anew what Redis
//! has forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{self, AbortHandle, JoinSet},
    time::{Instant, sleep},
};
use tracing::{debug, error, warn};

use super::{
    board::{Decision, Entry},
    means::{Means, NotFollowed, Trial},
};
use crate::redis_client::Unavailable;

/// How often the board is read while nothing is going on: one command a second for each node.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The same while a version waits for its decision: so long may nodes lie apart when they go live.
const LOOK_INTERVAL_IN_SWAP: Duration = Duration::from_millis(100);

/// So long the last look may lie back until nobody can tell what the cluster runs: as long as the broker's own health.
const LOOK_AGE_MAX: Duration = Duration::from_secs(3);

/// After a decision could not be followed.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How often the pieces of a component are kept from being forgotten.
const KEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// How far this node has come, for whoever asks.
#[derive(Default)]
pub(super) struct Standing {
    state: Mutex<State>,
    /// Has the board read now.
    pub(super) look_now: Notify,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    away: Option<Unavailable>,
    /// Plugins whose decision is not followed, and why.
    behind: BTreeMap<String, String>,
}

impl Standing {
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
        match state.behind.first_key_value() {
            Some((plugin, why)) => Err(format!("plugin {plugin}: {why}")),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the board, and acts on it.
pub(super) struct Follower {
    means: Arc<Means>,
    standing: Arc<Standing>,
    plugins: BTreeMap<String, Followed>,
    tasks: JoinSet<Done>,
    /// Whose task it is.
    running: HashMap<task::Id, String>,
}

/// One plugin, as far as this node has followed the cluster.
#[derive(Default)]
struct Followed {
    /// The last decision that this node is done with.
    decision: Option<(u64, Decision)>,
    /// The one before it, which the cluster goes back to where its version fails on probation; none: what the files say.
    before: Option<Decision>,
    /// The component of it, for nodes that join after Redis has lost it.
    bytes: Option<Arc<[u8]>>,
    /// When the pieces of it have to be kept once more.
    keep_at: Option<Instant>,
    /// The last proposal that was looked at.
    tried: Option<String>,
    /// What came of it, unless it is over.
    trial: Option<Trial>,
    /// What is going on for this plugin.
    task: Option<(Doing, AbortHandle)>,
    /// Not before this a decision is tried once more.
    retry_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Trying,
    Following,
    Keeping,
    Retracting,
}

/// What a task came to.
enum Done {
    Tried(Trial),
    Followed {
        number: u64,
        decision: Decision,
        result: Result<Option<Arc<[u8]>>, NotFollowed>,
    },
    Kept(Result<(), Unavailable>),
    Retracted,
}

impl Follower {
    pub(super) fn new(means: Means, standing: Arc<Standing>) -> Self {
        Self {
            means: Arc::new(means),
            standing,
            plugins: BTreeMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    /// Follows the cluster until it is dropped.
    pub(super) async fn run(mut self) {
        let standing = self.standing.clone();
        loop {
            match self.means.board.look().await {
                Ok(entries) => self.follow(entries),
                Err(error) => {
                    debug!(%error, "the plugin versions of the cluster are not known");
                    standing.state().away = Some(error);
                }
            }
            let in_swap = |followed: &Followed| followed.trial.is_some() || followed.task.is_some();
            let pause = if self.plugins.values().any(in_swap) {
                LOOK_INTERVAL_IN_SWAP
            } else {
                LOOK_INTERVAL
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = standing.look_now.notified() => {}
                Some(done) = self.tasks.join_next_with_id() => self.take(done),
            }
        }
    }

    fn follow(&mut self, mut entries: BTreeMap<String, Entry>) {
        for plugin in self.plugins.keys() {
            // Redis may have lost what this node knows.
            entries.entry(plugin.clone()).or_default();
        }
        for (plugin, entry) in entries {
            if self.means.registry.is_configured(&plugin) {
                self.step(&plugin, entry);
            } else if let Some(gone) = self.plugins.remove(&plugin) {
                gone.stop();
                self.standing.state().behind.remove(&plugin);
            }
        }
        let mut state = self.standing.state();
        state.looked = Some(Instant::now());
        state.away = None;
    }

    /// Begins what is to be done next for one plugin.
    fn step(&mut self, plugin: &str, entry: Entry) {
        let now = Instant::now();
        let followed = self.plugins.entry(plugin.to_owned()).or_default();
        let number = followed.number();
        let decided = entry.decided.as_ref();
        let news = decided.filter(|(decided, _)| *decided > number);
        let proposed = entry.proposed.as_ref();
        if let Some((doing, task)) = &followed.task {
            let wanted = followed.tried.as_deref();
            let is_wanted = proposed.is_some_and(|proposal| wanted == Some(&proposal.id))
                || news.is_some_and(|(_, decision)| wanted == Some(&decision.id));
            if *doing == Doing::Trying && !is_wanted {
                // It is taken out once it has ended.
                task.abort();
            }
            return;
        }
        if let Some((number, decision)) = news {
            if followed.retry_at.is_none_or(|at| at <= now) {
                self.begin_following(plugin, *number, decision.clone());
            }
            return;
        }
        match proposed {
            Some(proposal) if followed.tried.as_ref() != Some(&proposal.id) => {
                followed.tried = Some(proposal.id.clone());
                let means = self.means.clone();
                let (name, proposal) = (plugin.to_owned(), proposal.clone());
                let trial = async move { Done::Tried(means.try_out(&name, proposal).await) };
                self.spawn(plugin, Doing::Trying, trial);
                return;
            }
            Some(_) => {}
            None => followed.trial = None,
        }
        if decided.is_some_and(|(decided, _)| *decided == number) && self.begin_retracting(plugin) {
            return;
        }
        let Some(followed) = self.plugins.get(plugin) else {
            return;
        };
        let forgotten = decided.map_or(0, |(number, _)| *number) < number;
        if forgotten || followed.keep_at.is_some_and(|at| at <= now) {
            self.begin_keeping(plugin);
        }
    }

    fn begin_following(&mut self, plugin: &str, number: u64, decision: Decision) {
        let followed = self.plugins.entry(plugin.to_owned()).or_default();
        let trial = followed.trial.take_if(|trial| trial.id == decision.id);
        if trial.as_ref().is_some_and(|trial| trial.ready.is_none()) {
            // The others went ahead without this node, which an operator allowed.
            warn!(
                plugin,
                by = decision.by,
                "the cluster runs a version that this node refused; it keeps its own"
            );
            followed.decision = Some((number, decision));
            return;
        }
        let ready = trial.and_then(|trial| trial.ready);
        if ready.is_none() {
            let version = decision.version();
            let why = format!("the cluster runs {version}, which is not live here yet");
            self.standing
                .state()
                .behind
                .entry(plugin.to_owned())
                .or_insert(why);
        }
        let (means, name) = (self.means.clone(), plugin.to_owned());
        let follow = async move {
            let result = means.go_along(&name, &decision, ready).await;
            Done::Followed {
                number,
                decision,
                result,
            }
        };
        self.spawn(plugin, Doing::Following, follow);
    }

    /// Takes the decision back for all nodes, where this one took its version back by itself: what fails here fails
    /// elsewhere, and the nodes are to run the same.
    fn begin_retracting(&mut self, plugin: &str) -> bool {
        let Some(followed) = self.plugins.get(plugin) else {
            return false;
        };
        let Some((number, decision)) = &followed.decision else {
            return false;
        };
        let component = decision.component.as_ref();
        let reason = component
            .and_then(|component| self.means.registry.taken_back(plugin, &component.sha256));
        let Some(reason) = reason else {
            return false;
        };
        let before = followed.before.as_ref();
        let back_to = before.and_then(|before| before.component.clone());
        let (means, name, number) = (self.means.clone(), plugin.to_owned(), *number);
        let retract = async move {
            means.retract(&name, number, back_to, &reason).await;
            Done::Retracted
        };
        self.spawn(plugin, Doing::Retracting, retract);
        true
    }

    fn begin_keeping(&mut self, plugin: &str) {
        let Some(followed) = self.plugins.get(plugin) else {
            return;
        };
        let Some((number, decision)) = followed.decision.clone() else {
            return;
        };
        let bytes = followed.bytes.clone();
        let (means, name) = (self.means.clone(), plugin.to_owned());
        let keep =
            async move { Done::Kept(means.keep(&name, number, &decision, bytes.as_deref()).await) };
        self.spawn(plugin, Doing::Keeping, keep);
    }

    fn spawn(
        &mut self,
        plugin: &str,
        doing: Doing,
        task: impl Future<Output = Done> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.running.insert(handle.id(), plugin.to_owned());
        let followed = self.plugins.entry(plugin.to_owned()).or_default();
        followed.task = Some((doing, handle));
    }

    fn take(&mut self, ended: Result<(task::Id, Done), task::JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            // Broken off, or panicked, which is logged: it is begun once more.
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
            Some(Done::Tried(trial)) => followed.trial = Some(trial),
            Some(Done::Followed {
                number,
                decision,
                result: Ok(bytes),
            }) => {
                followed.keep_at = bytes.as_ref().map(|_| now + KEEP_INTERVAL);
                followed.bytes = bytes;
                let before = followed.decision.replace((number, decision));
                followed.before = before.map(|(_, before)| before);
                followed.retry_at = None;
                self.standing.state().behind.remove(&plugin);
            }
            Some(Done::Followed {
                decision,
                result: Err(error),
                ..
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
                self.standing.state().behind.insert(plugin, why);
            }
            Some(Done::Kept(kept)) => {
                if let Err(error) = kept {
                    debug!(plugin, %error, "what the cluster runs is not written down in Redis");
                }
                followed.keep_at = followed.bytes.as_ref().map(|_| now + KEEP_INTERVAL);
            }
            Some(Done::Retracted) | None => {}
        }
    }
}

impl Followed {
    fn number(&self) -> u64 {
        self.decision.as_ref().map_or(0, |(number, _)| *number)
    }

    fn stop(self) {
        if let Some((_, task)) = self.task {
            task.abort();
        }
    }
}
