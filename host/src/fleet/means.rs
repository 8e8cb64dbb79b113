//! What a node can do about a plugin: try a component, go live with what was decided, and keep it where the others find
//! it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    FileBytesMax,
    answer::NodeAnswer,
    board::{Board, Component, Decision, Proposal},
    components::{Components, FetchError},
};
use crate::{
    plugin::{Admitted, ChangeError, Registry},
    redis_client::Unavailable,
};

/// Pause between two attempts to answer a proposal.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);

/// What trying and following need.
pub(super) struct Means {
    pub(super) node: Arc<str>,
    pub(super) registry: Arc<Registry>,
    pub(super) board: Arc<Board>,
    pub(super) components: Arc<Components>,
    pub(super) bytes_max: FileBytesMax,
}

/// A component that was tried out.
pub(super) struct Trial {
    pub(super) id: String,
    /// None where it was refused.
    pub(super) ready: Option<Ready>,
}

/// A component that may go live.
pub(super) struct Ready {
    pub(super) admitted: Admitted,
    pub(super) bytes: Arc<[u8]>,
}

/// Why a component cannot be tried, or a decision not be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFollowed {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Means {
    /// Tries what is proposed beside what is live, and says what came of it.
    pub(super) async fn try_out(&self, plugin: &str, proposal: Proposal) -> Trial {
        let began = Instant::now();
        let tried = self.fetch_and_admit(plugin, &proposal.component).await;
        let (answer, ready) = match tried {
            Ok(ready) => (NodeAnswer::admitted(began.elapsed()), Some(ready)),
            Err(NotFollowed::Change(error)) => (NodeAnswer::refused(&error), None),
            Err(NotFollowed::Fetch(error)) => (NodeAnswer::failed(&error.to_string()), None),
        };
        // As long as somebody may wait for it: with the proposal this task ends too.
        while let Err(error) = self.board.answer(&proposal.id, &self.node, &answer).await {
            debug!(plugin, %error, "a proposal is not answered");
            sleep(ANSWER_PAUSE).await;
        }
        Trial {
            id: proposal.id,
            ready,
        }
    }

    async fn fetch_and_admit(
        &self,
        plugin: &str,
        component: &Component,
    ) -> Result<Ready, NotFollowed> {
        let bytes = self.components.fetch(component, (self.bytes_max)()).await?;
        let admitted = self.registry.admit(plugin, bytes.clone()).await?;
        Ok(Ready { admitted, bytes })
    }

    /// Makes live what was decided. Returns the component, where it is one.
    pub(super) async fn go_along(
        &self,
        plugin: &str,
        decision: &Decision,
        ready: Option<Ready>,
    ) -> Result<Option<Arc<[u8]>>, NotFollowed> {
        let Some(component) = &decision.component else {
            info!(
                plugin,
                by = decision.by,
                "the cluster follows the plugin's file again"
            );
            // Where the file is refused, another attempt would change nothing.
            let answer = follow_file(&self.registry, plugin, (self.bytes_max)()).await;
            let answered = self.board.answer(&decision.id, &self.node, &answer).await;
            if let Err(error) = answered {
                debug!(plugin, %error, "it is not written down that the file is followed");
            }
            return Ok(None);
        };
        let began = Instant::now();
        let ready = match ready {
            Some(ready) => ready,
            None => self.fetch_and_admit(plugin, component).await?,
        };
        self.registry.put_live(ready.admitted).await?;
        let answer = NodeAnswer::live(began.elapsed());
        let answered = self.board.answer(&decision.id, &self.node, &answer).await;
        let kept = self.components.keep(component, &ready.bytes).await;
        if let Err(error) = answered.and(kept) {
            debug!(plugin, %error, "what the cluster runs is not written down in Redis");
        }
        Ok(Some(ready.bytes))
    }

    /// Sees to it that the others find what this node follows. The component first: a decision leads to it.
    pub(super) async fn keep(
        &self,
        plugin: &str,
        number: u64,
        decision: &Decision,
        bytes: Option<&[u8]>,
    ) -> Result<(), Unavailable> {
        if let (Some(component), Some(bytes)) = (&decision.component, bytes) {
            self.components.keep(component, bytes).await?;
        }
        self.board.restore(plugin, number, decision).await
    }

    /// Has the cluster go back from decision `number` to `component`, or to what the files say. Where that cannot be
    /// written down now it is tried again with the next look.
    pub(super) async fn retract(
        &self,
        plugin: &str,
        number: u64,
        component: Option<Component>,
        reason: &str,
    ) {
        let decision = Decision {
            id: format!("{}-retracts-{number}", self.node),
            component,
            by: self.node.to_string(),
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        };
        match self.board.retract(plugin, number, &decision).await {
            Ok(true) => warn!(
                plugin,
                version = decision.version(),
                "the cluster goes back to an earlier version, because the last one failed here: {reason}"
            ),
            // Another node was faster, or somebody decided anew.
            Ok(false) => {}
            Err(error) => debug!(plugin, %error, "a decision is not taken back yet"),
        }
    }
}

/// Makes live what the plugin's file says, and says what came of it.
pub(super) async fn follow_file(
    registry: &Registry,
    plugin: &str,
    file_bytes_max: usize,
) -> NodeAnswer {
    let began = Instant::now();
    match registry.reload(plugin, file_bytes_max, true).await {
        Ok(_) => NodeAnswer::live(began.elapsed()),
        Err(error) => NodeAnswer::refused(&error),
    }
}
