//! Replays failed calls on the previous version.

use std::sync::Arc;

use futures_util::FutureExt;
use signalbox_telemetry::supervise;
use tokio::sync::mpsc;

use super::{Failed, OwnedCall, Replays};
use crate::{
    evidence::Evidence,
    rollout::{VersionAnswer, ask},
    version::PluginVersion,
};

/// Replays calls on `before` until the returned queue is dropped. Must be called within a Tokio runtime.
pub fn start(before: &PluginVersion) -> Arc<Replays> {
    let version = Arc::new(before.as_double("replay"));
    let (replays, calls) = Replays::new();
    let server = version.server_metrics();
    let state = (version.clone(), calls, replays.evidence.clone());
    supervise::spawn("replay of failed calls", server, state, |state| {
        let (version, calls, evidence) = state;
        run(version, calls, evidence).boxed()
    });
    Arc::new(replays)
}

async fn run(
    version: &Arc<PluginVersion>,
    calls: &mut mpsc::Receiver<Failed>,
    evidence: &Evidence,
) {
    while let Some(failed) = calls.recv().await {
        evidence.asked(failed.case, failed.is_survived_by(version).await);
        // Tasks that serve clients go first.
        tokio::task::yield_now().await;
    }
}

impl Failed {
    async fn is_survived_by(&self, version: &Arc<PluginVersion>) -> bool {
        let client = self.client.as_ref();
        match (&self.call, client) {
            (OwnedCall::About(asked, message), _) => {
                let answer = ask(*asked, client, message, version).await;
                !matches!(answer, VersionAnswer::Failed(_))
            }
            (OwnedCall::Connected, Some(client)) => {
                !version.follows_connections() || version.connected(client).await.is_ok()
            }
            (OwnedCall::Disconnected(code, reason), Some(client)) => {
                !version.follows_connections()
                    || version.disconnected(client, *code, reason).await.is_ok()
            }
            (OwnedCall::Join(room), Some(client)) => {
                !version.authorizes_rooms() || version.authorize_join(client, room).await.is_ok()
            }
            (OwnedCall::Membership(change, room, connections), Some(client)) => {
                let ask = || version.membership_changed(client, *change, room, *connections);
                !version.follows_membership() || ask().await.is_ok()
            }
            // These calls are always about a client.
            (
                OwnedCall::Connected
                | OwnedCall::Disconnected(..)
                | OwnedCall::Join(_)
                | OwnedCall::Membership(..),
                None,
            ) => false,
        }
    }
}
