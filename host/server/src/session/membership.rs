//! Informs the plugins that follow the members of rooms.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use signalbox_pipeline as pipeline;
use signalbox_plugin_runtime::MembershipChange;
use signalbox_router::Connection;

use super::{Services, actions::Actor};

/// A connection joined or left a room. Pass it to [`Actor::report`] when the client has got its answer.
#[derive(Debug)]
#[must_use = "plugins that follow membership do not learn of it otherwise"]
pub(super) struct MemberChange {
    change: MembershipChange,
    /// The number of the user's connections in the room on this node; `None` if no plugin wants to know.
    connections: Option<usize>,
}

impl MemberChange {
    /// It joined, and the user has so many `connections` in the room.
    pub(super) fn joined(connections: Option<usize>) -> Self {
        let change = MembershipChange::Joined;
        Self {
            change,
            connections,
        }
    }

    /// It left, and the user has so many `connections` in the room.
    pub(super) fn left(connections: Option<usize>) -> Self {
        let change = MembershipChange::Left;
        Self {
            change,
            connections,
        }
    }
}

/// Whether a plugin follows membership, so that the connections of the user must be counted.
pub(super) fn is_followed(services: &Services) -> bool {
    services.manager.live().follows_membership()
}

/// Makes the connection unreachable. Returns the rooms that it left, if a plugin wants to know.
pub(super) fn disconnect(
    services: &Services,
    connection: &Arc<Connection>,
) -> Vec<(Arc<str>, MemberChange)> {
    if !is_followed(services) {
        services.router.disconnect(connection);
        return Vec::new();
    }
    let left = services.router.disconnect_counted(connection);
    left.into_iter()
        .map(|(room, connections)| (room, MemberChange::left(Some(connections))))
        .collect()
}

impl Actor<'_> {
    /// Informs the plugins of a change of the members of `room`, and carries out their actions. Joins and leaves among those
    /// are not reported.
    ///
    /// Not an async function: this one is called for actions, and carries out actions.
    pub(super) fn report<'r>(&'r self, change: MemberChange, room: &'r str) -> BoxFuture<'r, ()> {
        let (Some(client), Some(connections)) = (self.member, change.connections) else {
            return futures_util::future::ready(()).boxed();
        };
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        let unreported = Self {
            member: None,
            ..*self
        };
        async move {
            let plugins = self.services.manager.enter().await;
            let change = change.change;
            let called = pipeline::membership_changed(&plugins, client, change, room, connections);
            let actions = called.await;
            drop(plugins);
            unreported.perform_all(actions).await;
        }
        .boxed()
    }
}
