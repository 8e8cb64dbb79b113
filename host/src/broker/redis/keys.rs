//! The names of keys and channels: the contract with other nodes, with workers, and with `websocket-app`.

use std::{sync::Arc, time::Duration};

use crate::config::{RedisCompat, RedisConfig};

/// A server's ID: a node's name and the nonce of its boot, or whatever `websocket-app` calls itself.
pub(super) type ServerId = Arc<str>;

/// What this server's lease holds: that it takes messages with a trace too ([`super::traced`]). Servers that do not wrote
/// 1, and whether there is a lease is all that they look for.
pub(super) const LEASE_VALUE: &str = "2";

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name<'a> {
    User(&'a str),
    Room(&'a str),
}

/// Makes the names.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    own_id: ServerId,
    compat: RedisCompat,
    command_timeout: Duration,
}

impl Keys {
    pub(super) fn new(config: &RedisConfig, server_id: &str) -> Self {
        Self {
            prefix: config.key_prefix.clone(),
            own_id: server_id.into(),
            compat: config.compat,
            command_timeout: config.command_timeout,
        }
    }

    /// This node's ID.
    pub(super) fn own_id(&self) -> &ServerId {
        &self.own_id
    }

    /// Who else reads and writes them.
    pub(super) fn compat(&self) -> RedisCompat {
        self.compat
    }

    /// How long a command may take.
    pub(super) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// The set of IDs of the servers that hold `name`. A user's name is the rest of the key, whatever it contains:
    /// no name can spell another's key.
    pub(super) fn route(&self, name: Name<'_>) -> String {
        match name {
            Name::User(user) => format!("{}user_servers:{user}", self.prefix),
            Name::Room(room) => format!("{}room_servers:{room}", self.prefix),
        }
    }

    /// The lease of a server.
    pub(super) fn lease(&self, server: &str) -> String {
        format!("{}server_alive:{server}", self.prefix)
    }

    /// The set of IDs of all servers.
    pub(super) fn nodes(&self) -> String {
        format!("{}signalbox:nodes", self.prefix)
    }

    /// The channel of a server.
    pub(super) fn server_channel(&self, server: &str) -> String {
        format!("{}server:{server}", self.prefix)
    }

    /// The channel of all servers.
    pub(super) fn broadcast_channel(&self) -> String {
        format!("{}broadcast", self.prefix)
    }

    /// What `websocket-app` asks before it publishes. Server IDs hold no colon, so the last one ends the user's name.
    pub(super) fn online(&self, user: &str, server: &str) -> String {
        format!("{}user_online:{user}:{server}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RedisMode;

    #[test]
    fn names_are_those_of_the_contract() {
        let config = RedisConfig {
            urls: Vec::new(),
            mode: RedisMode::Auto,
            sentinel_master: None,
            ca_file: None,
            compat: RedisCompat::None,
            key_prefix: "p:".to_owned(),
            command_timeout: Duration::from_millis(500),
        };
        let keys = Keys::new(&config, "a-1");
        assert_eq!(keys.route(Name::User("u:{*}")), "p:user_servers:u:{*}");
        assert_eq!(keys.route(Name::Room("r")), "p:room_servers:r");
        assert_eq!(keys.lease("a-1"), "p:server_alive:a-1");
        assert_eq!(keys.nodes(), "p:signalbox:nodes");
        assert_eq!(keys.server_channel("a-1"), "p:server:a-1");
        assert_eq!(keys.broadcast_channel(), "p:broadcast");
        assert_eq!(keys.online("u", "a-1"), "p:user_online:u:a-1");
    }
}
