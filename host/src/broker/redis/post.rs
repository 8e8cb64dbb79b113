//! One text for the channel of one server: how it is published, and what the answer tells.

use redis::Cmd;

use super::keys::Keys;
use crate::{
    config::RedisCompat,
    redis_client::{Commands, Topology, Unavailable},
};

/// A text on its way to a server's channel.
pub(super) struct Post {
    command: Cmd,
    counts_everybody: bool,
}

impl Post {
    /// Publishes by shard in a cluster, because a classic message goes to all of its servers. Beside `websocket-app`,
    /// which only listens classically, by the classic way.
    ///
    /// # Errors
    /// [`Unavailable`] where no link says what is behind it.
    pub(super) fn new(
        commands: &Commands,
        keys: &Keys,
        server: &str,
        text: &str,
    ) -> Result<Self, Unavailable> {
        let in_cluster = commands.topology()? == Topology::Cluster;
        let sharded = in_cluster && keys.compat() == RedisCompat::None;
        let mut command = redis::cmd(if sharded { "SPUBLISH" } else { "PUBLISH" });
        command.arg(keys.server_channel(server)).arg(text);
        Ok(Self {
            command,
            // A classic answer counts the clients of one server of the cluster. A sharded one is that of the master of
            // the channel's slot, where every node subscribes.
            counts_everybody: sharded || !in_cluster,
        })
    }

    /// To be sent once or not at all.
    pub(super) fn command(&self) -> &Cmd {
        &self.command
    }

    /// Whether anybody listens, as far as the answer can tell.
    pub(super) fn is_heard(&self, listeners: usize) -> bool {
        listeners > 0 || !self.counts_everybody
    }
}
