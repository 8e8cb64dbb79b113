//! One text for the channel of one server: the command that publishes it, and the meaning of the answer.

use redis::Cmd;
use signalbox_config::RedisCompat;
use signalbox_redis_client::{Commands, Topology, Unavailable};

use super::{health::Publishing, keys::KeyNames};

/// The largest text that a server takes: the largest frame size that can be configured.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 20;

/// A text on its way to a server's channel.
pub(super) struct Post {
    command: Cmd,
    counts_everybody: bool,
}

impl Post {
    /// Uses sharded publishing in a Redis Cluster, because a classic message goes to all of its servers. Next to
    /// `websocket-app`, which has classic subscriptions only, uses classic publishing.
    ///
    /// # Errors
    /// [`Unavailable`] if no link is up, so that the topology is unknown.
    pub(super) fn new(
        commands: &Commands,
        keys: &KeyNames,
        server: &str,
        text: &str,
    ) -> Result<Self, Unavailable> {
        let topology = commands.topology()?;
        let publishing = Self::publishing(topology, keys);
        let mut command = redis::cmd(match publishing {
            Publishing::Classic => "PUBLISH",
            Publishing::Sharded => "SPUBLISH",
        });
        command.arg(keys.server_channel(server)).arg(text);
        Ok(Self {
            command,
            // A classic answer counts the clients of one server of the cluster. A sharded one is that of the master of
            // the channel's slot, where every node subscribes.
            counts_everybody: publishing == Publishing::Sharded || topology != Topology::Cluster,
        })
    }

    /// The way in which nodes publish to each other.
    pub(super) fn publishing(topology: Topology, keys: &KeyNames) -> Publishing {
        match (topology, keys.compat()) {
            (Topology::Cluster, RedisCompat::None) => Publishing::Sharded,
            _ => Publishing::Classic,
        }
    }

    /// The command. It must be sent at most once.
    pub(super) fn command(&self) -> &Cmd {
        &self.command
    }

    /// Whether anybody listens, given the number of listeners in the answer; `true` if that number does not cover all.
    pub(super) fn is_heard(&self, listeners: usize) -> bool {
        listeners > 0 || !self.counts_everybody
    }
}
