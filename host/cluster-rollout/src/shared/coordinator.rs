//! A swap on all nodes, carried out by the node that was asked for it: propose, collect the answers, decide, watch the
//! nodes go live.
//!
//! If it ends early, by a crash or because Redis is unavailable, the decision log is authoritative: before the decision
//! nothing has changed, after it the decision holds. The answer to the operator never claims more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use signalbox_broker::BrokerError;
use signalbox_plugin_manager::FLUSH_TIME_MAX;
use signalbox_plugin_runtime::Sha256;
use signalbox_redis_client::Unavailable;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{
    ClusterState,
    decision_log::{DecideOutcome, PluginEntry, ProposeOutcome},
    texts::{Decision, Proposal, StoredComponent},
    votes::{VoteResult, judge, roll},
};
use crate::{ClusterPush, ClusterPushError, DecidedSwap, NodeAnswer, NodeOutcome, Released};

/// How often a proposal is renewed.
const RENEWAL: Duration = Duration::from_secs(2);

/// How often answers are read.
const LISTEN_INTERVAL: Duration = Duration::from_millis(50);

/// How often the list of living nodes is read.
const CENSUS_INTERVAL: Duration = Duration::from_millis(500);

/// How long nodes may take to try a version: alongside traffic, the largest components take tens of seconds to compile.
const TRIAL_TIME: Duration = Duration::from_secs(120);

/// How long to wait after the decision for nodes to answer that they are live. They answer once their history is on disk.
const ECHO_TIME: Duration = FLUSH_TIME_MAX.saturating_add(Duration::from_secs(3));

/// How long to try to find out whether a decision stands that Redis did not confirm.
const DOUBT_TIME: Duration = Duration::from_secs(10);

impl ClusterState {
    /// Makes all nodes go live with the component `bytes`, or none of them.
    pub(super) async fn push_to_all(
        &self,
        plugin: &str,
        bytes: Arc<[u8]>,
        how: ClusterPush,
        who: &str,
    ) -> Result<DecidedSwap, ClusterPushError> {
        let began = Instant::now();
        self.check_key()?;
        let component = StoredComponent {
            sha256: Sha256::of(&bytes),
            bytes: bytes.len(),
        };
        // A component that this node refuses need not go through Redis, and its author learns the reason at once.
        drop(self.manager.admit(plugin, bytes.clone()).await?);
        self.components.offer(&component, &bytes).await?;
        let entry = self.decision_log.look_at(plugin).await?;
        let swap = Swap {
            shared: self,
            plugin,
            proposal: Proposal {
                id: self.next_id(),
                number: self.last_number(plugin, &entry) + 1,
                component,
                by: self.node.to_string(),
            },
            how,
            who,
        };
        let (number, nodes) = swap.carry_out().await?;
        info!(
            plugin,
            version = swap.proposal.component.sha256.label(),
            number,
            nodes = nodes.len(),
            "the cluster runs another version"
        );
        Ok(DecidedSwap {
            sha256: swap.proposal.component.sha256,
            number,
            nodes,
            took: began.elapsed(),
        })
    }

    /// Makes all nodes follow their own files of `plugin` again.
    pub(super) async fn release_all(
        &self,
        plugin: &str,
        who: &str,
    ) -> Result<Released, ClusterPushError> {
        self.check_key()?;
        let living: BTreeSet<String> = self.broker.nodes().await?.into_iter().collect();
        let id = self.next_id();
        let number = loop {
            let entry = self.decision_log.look_at(plugin).await?;
            let number = self.last_number(plugin, &entry) + 1;
            let decision = Decision::new(number, &id, None, &self.node, who);
            match self
                .decision_log
                .settle(plugin, &entry.text, &decision)
                .await?
            {
                DecideOutcome::Stands => break number,
                DecideOutcome::Busy(by) => return Err(ClusterPushError::Busy(by)),
                // Another decision was made between the read and now.
                DecideOutcome::Changed | DecideOutcome::Lost => {}
            }
        };
        self.sync_status.look_now.notify_one();
        let asked = |node| (node, NodeAnswer::of(NodeOutcome::NoAnswer));
        let nodes = living.into_iter().map(asked).collect();
        let nodes = echoes(self, &id, nodes).await;
        info!(plugin, number, "the cluster follows the plugin's files");
        Ok(Released { number, nodes })
    }

    fn next_id(&self) -> String {
        let number = self.proposals.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.node)
    }

    fn check_key(&self) -> Result<(), ClusterPushError> {
        if self.seals.has_key() {
            Ok(())
        } else {
            Err(ClusterPushError::NoKey)
        }
    }

    /// The number of the last decision that this node knows of; 0 if there was none.
    fn last_number(&self, plugin: &str, entry: &PluginEntry) -> u64 {
        let stands = entry.decided.ours().map_or(0, |decision| decision.number);
        stands.max(self.sync_status.number(plugin))
    }
}

/// One swap under way.
struct Swap<'a> {
    shared: &'a ClusterState,
    plugin: &'a str,
    proposal: Proposal,
    how: ClusterPush,
    who: &'a str,
}

impl Swap<'_> {
    async fn carry_out(&self) -> Result<(u64, BTreeMap<String, NodeAnswer>), ClusterPushError> {
        let ClusterState {
            decision_log,
            sync_status,
            ..
        } = self.shared;
        match decision_log.propose(self.plugin, &self.proposal).await? {
            ProposeOutcome::Stands => sync_status.look_now.notify_one(),
            ProposeOutcome::Busy(by) => return Err(ClusterPushError::Busy(by)),
        }
        let agreed = self.hear().await;
        let (nodes, known) = match agreed {
            Ok(agreed) => agreed,
            Err(error) => {
                // If that fails, the proposal expires after its lease.
                let _ = decision_log.withdraw(self.plugin, &self.proposal.id).await;
                sync_status.look_now.notify_one();
                return Err(error);
            }
        };
        let number = match self.decide(known).await {
            Ok(number) => number,
            Err(reason) => return Err(self.in_doubt(reason, nodes)),
        };
        let Some(number) = number else {
            let reason = "the proposal was over before it was decided".to_owned();
            return Err(ClusterPushError::NotAgreed { reason, nodes });
        };
        sync_status.look_now.notify_one();
        Ok((number, echoes(self.shared, &self.proposal.id, nodes).await))
    }

    /// Waits until the nodes' answers allow a verdict. Returns them, and the highest number of a decision that any node
    /// follows.
    async fn hear(&self) -> Result<(BTreeMap<String, NodeAnswer>, u64), ClusterPushError> {
        let ClusterState {
            decision_log,
            broker,
            ..
        } = self.shared;
        let id = &self.proposal.id;
        let began = Instant::now();
        let (mut renewed, mut counted) = (began, began);
        let mut living = broker.nodes().await?;
        let mut asked: BTreeSet<String> = living.iter().cloned().collect();
        loop {
            let votes = decision_log.answers(id, asked.iter()).await?;
            let nodes = roll(&asked, &living, &votes);
            let late = began.elapsed() > TRIAL_TIME;
            match judge(&nodes, self.how.quorum, late) {
                VoteResult::Go => {
                    let known = votes.values().map(|vote| vote.number).max();
                    return Ok((nodes, known.unwrap_or(0)));
                }
                VoteResult::Stop(reason) => {
                    return Err(ClusterPushError::NotAgreed { reason, nodes });
                }
                VoteResult::Wait => sleep(LISTEN_INTERVAL).await,
            }
            if counted.elapsed() > CENSUS_INTERVAL {
                counted = Instant::now();
                living = broker.nodes().await?;
                asked.extend(living.iter().cloned());
            }
            if renewed.elapsed() > RENEWAL {
                renewed = Instant::now();
                if !decision_log.renew(self.plugin, id).await? {
                    let reason = "Redis has forgotten the proposal".to_owned();
                    return Err(ClusterPushError::NotAgreed { reason, nodes });
                }
            }
        }
    }

    /// Decides, and returns the number of the decision, which is higher than `known`. Returns `None` if the proposal
    /// had expired before.
    ///
    /// # Errors
    /// Returns [`Unavailable`] if it remains unknown whether the decision stands.
    async fn decide(&self, known: u64) -> Result<Option<u64>, Unavailable> {
        let until = Instant::now() + DOUBT_TIME;
        loop {
            let error = match self.try_to_decide(known).await {
                Ok(Some(decided)) => return Ok(decided),
                Ok(None) => continue,
                Err(error) => error,
            };
            if Instant::now() > until {
                return Err(error);
            }
            sleep(LISTEN_INTERVAL).await;
        }
    }

    /// Returns `None` if another decision was made in between. Deciding twice is harmless: the second attempt finds the
    /// first decision.
    async fn try_to_decide(&self, known: u64) -> Result<Option<Option<u64>>, Unavailable> {
        let Self { shared, plugin, .. } = self;
        let Proposal {
            id, component, by, ..
        } = &self.proposal;
        let own = |decision: &&Decision| decision.id == *id;
        let entry = shared.decision_log.look_at(plugin).await?;
        if let Some(decision) = entry.decided.ours().filter(own) {
            return Ok(Some(Some(decision.number)));
        }
        let number = shared.last_number(plugin, &entry).max(known) + 1;
        let decision = Decision {
            probation: !self.how.no_probation,
            ..Decision::new(number, id, Some(component.clone()), by, self.who)
        };
        Ok(
            match shared
                .decision_log
                .decide(plugin, &entry.text, &decision)
                .await?
            {
                DecideOutcome::Stands => Some(Some(number)),
                DecideOutcome::Changed => None,
                DecideOutcome::Lost | DecideOutcome::Busy(_) => {
                    let entry = shared.decision_log.look_at(plugin).await?;
                    let decision = entry.decided.ours().filter(own);
                    Some(decision.map(|decision| decision.number))
                }
            },
        )
    }

    fn in_doubt(
        &self,
        reason: Unavailable,
        nodes: BTreeMap<String, NodeAnswer>,
    ) -> ClusterPushError {
        ClusterPushError::Unknown {
            reason: reason.to_string(),
            nodes,
        }
    }
}

/// The nodes' answers once they have followed the decision, or their previous ones if that takes too long.
async fn echoes(
    shared: &ClusterState,
    id: &str,
    mut nodes: BTreeMap<String, NodeAnswer>,
) -> BTreeMap<String, NodeAnswer> {
    let until = Instant::now() + ECHO_TIME;
    loop {
        if let Ok(votes) = shared.decision_log.answers(id, nodes.keys()).await {
            nodes.extend(votes.into_iter().map(|(node, vote)| (node, vote.answer)));
        }
        let waited_for = |answer: &NodeAnswer| {
            matches!(
                answer.outcome,
                NodeOutcome::Admitted | NodeOutcome::NoAnswer
            )
        };
        if !nodes.values().any(waited_for) || Instant::now() > until {
            return nodes;
        }
        sleep(LISTEN_INTERVAL).await;
    }
}

impl From<Unavailable> for ClusterPushError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<BrokerError> for ClusterPushError {
    fn from(error: BrokerError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
