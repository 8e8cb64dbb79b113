//! The operations of a node on a plugin: try a component, go live with a decision, and keep it where the other nodes
//! find it.

use std::{sync::Arc, time::Duration};

use signalbox_plugin_manager::{AdmittedComponent, ChangeError, PluginManager};
use signalbox_redis_client::Unavailable;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    components::{ComponentStore, FetchError},
    decision_log::DecisionLog,
    texts::{Decision, Proposal, StoredComponent},
    votes::Vote,
};
use crate::{FileBytesMax, NodeAnswer, alone::follow_file};

/// Pause between two attempts to answer a proposal.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);

/// The dependencies of trying and following.
pub(super) struct Applier {
    pub(super) node: Arc<str>,
    pub(super) manager: Arc<PluginManager>,
    pub(super) decision_log: Arc<DecisionLog>,
    pub(super) components: Arc<ComponentStore>,
    pub(super) bytes_max: FileBytesMax,
}

/// A component that was tried out.
pub(super) struct TriedComponent {
    pub(super) id: String,
    /// `None` if it was refused, or could not be tried.
    pub(super) ready: Option<ReadyComponent>,
}

/// A component that may go live.
pub(super) struct ReadyComponent {
    pub(super) admitted: AdmittedComponent,
    pub(super) bytes: Arc<[u8]>,
}

/// Why a component cannot be tried, or a decision cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Applier {
    /// Tries the proposed component alongside the live version, and answers the proposal. `number` is that of the
    /// decision that this node follows.
    pub(super) async fn try_out(
        &self,
        plugin: &str,
        proposal: Proposal,
        number: u64,
    ) -> TriedComponent {
        let began = Instant::now();
        let tried = self.fetch_and_admit(plugin, &proposal.component).await;
        let (answer, ready) = match tried {
            Ok(ready) => (NodeAnswer::admitted(began.elapsed()), Some(ready)),
            Err(ApplyError::Change(error)) => (NodeAnswer::refused(&error), None),
            Err(ApplyError::Fetch(error)) => (NodeAnswer::failed(&error.to_string()), None),
        };
        self.answer(plugin, &proposal.id, Vote { answer, number })
            .await;
        TriedComponent {
            id: proposal.id,
            ready,
        }
    }

    /// Answers that the proposal is not tried, for this reason.
    pub(super) async fn decline(
        &self,
        plugin: &str,
        id: String,
        number: u64,
        reason: &str,
    ) -> TriedComponent {
        let answer = NodeAnswer::failed(reason);
        self.answer(plugin, &id, Vote { answer, number }).await;
        TriedComponent { id, ready: None }
    }

    /// Retries until the answer is written. Somebody may wait for it as long as the proposal lasts, and this task ends
    /// with the proposal.
    async fn answer(&self, plugin: &str, id: &str, vote: Vote) {
        while let Err(error) = self.decision_log.answer(id, &self.node, &vote).await {
            debug!(plugin, %error, "a proposal is not answered");
            sleep(ANSWER_PAUSE).await;
        }
    }

    async fn fetch_and_admit(
        &self,
        plugin: &str,
        component: &StoredComponent,
    ) -> Result<ReadyComponent, ApplyError> {
        let bytes = self.components.fetch(component, (self.bytes_max)()).await?;
        let admitted = self.manager.admit(plugin, bytes.clone()).await?;
        Ok(ReadyComponent { admitted, bytes })
    }

    /// Goes live with the decision. Returns the component, if the decision names one.
    pub(super) async fn go_along(
        &self,
        plugin: &str,
        decision: &Decision,
        ready: Option<ReadyComponent>,
    ) -> Result<Option<Arc<[u8]>>, ApplyError> {
        let Some(component) = &decision.component else {
            info!(
                plugin,
                by = decision.by,
                "the cluster follows the plugin's file again"
            );
            // If the file is refused, another attempt would change nothing.
            let answer = follow_file(&self.manager, plugin, (self.bytes_max)()).await;
            let answered = self.echo(decision, answer).await;
            if let Err(error) = answered {
                debug!(plugin, %error, "the decision to follow the file is not stored in Redis");
            }
            return Ok(None);
        };
        let began = Instant::now();
        let ready = match ready {
            Some(ready) => ready,
            None => self.fetch_and_admit(plugin, component).await?,
        };
        self.manager
            .put_live(ready.admitted, decision.probation)
            .await?;
        let answered = self.echo(decision, NodeAnswer::live(began.elapsed())).await;
        let kept = self.components.keep(component, &ready.bytes).await;
        if let Err(error) = answered.and(kept) {
            debug!(plugin, %error, "the version that the cluster runs is not stored in Redis");
        }
        Ok(Some(ready.bytes))
    }

    async fn echo(&self, decision: &Decision, answer: NodeAnswer) -> Result<(), Unavailable> {
        let number = decision.number;
        let vote = Vote { answer, number };
        self.decision_log
            .answer(&decision.id, &self.node, &vote)
            .await
    }

    /// Makes sure that the other nodes find what this node follows: the component and, if the decision log has `text` in the
    /// decision's place, the decision. The component comes first, because the decision refers to it.
    pub(super) async fn keep(
        &self,
        plugin: &str,
        decision: &Decision,
        bytes: Option<&[u8]>,
        text: Option<&[u8]>,
    ) -> Result<(), Unavailable> {
        if let (Some(component), Some(bytes)) = (&decision.component, bytes) {
            self.components.keep(component, bytes).await?;
        }
        match text {
            Some(text) => self
                .decision_log
                .replace(plugin, text, decision)
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    /// Makes the cluster go back from `last`, whose text is `text`, to `component`, or to the files if there is none.
    /// If this cannot be written now, it is tried again after the next read.
    pub(super) async fn retract(
        &self,
        plugin: &str,
        last: &Decision,
        text: &[u8],
        component: Option<StoredComponent>,
        reason: &str,
    ) {
        let number = last.number + 1;
        let id = format!("{}-retracts-{}", self.node, last.number);
        let decision = Decision::new(number, &id, component, &self.node, "probation");
        match self.decision_log.replace(plugin, text, &decision).await {
            Ok(true) => warn!(
                plugin,
                version = decision.version(),
                "the cluster goes back to an earlier version, because the last one failed here: {reason}"
            ),
            // Another node was faster, or there is a new decision.
            Ok(false) => {}
            Err(error) => debug!(plugin, %error, "a decision is not withdrawn yet"),
        }
    }
}
