//! The names of keys and channels: the contract with other nodes, with workers, and with `websocket-app`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use signalbox_config::{RedisCompat, RedisConfig};

use crate::{HistoryName, OnceKey};

/// A server's ID: a node's name and the nonce of its boot, or the ID of a server of `websocket-app`.
pub(super) type ServerId = Arc<str>;

/// The value of this server's lease: the number of its [`Ability`].
pub(super) const LEASE_VALUE: &str = "8";

/// The formats that a server understands on its channel, by the value of its lease; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ability {
    /// Messages, and questions about users.
    Messages,
    /// Messages with a trace ([`super::traced`]): from 2 on.
    Traces,
    /// Marked messages, which it forwards to those who moved ([`super::marks`]): from 3 on.
    Forwards,
    /// Messages of histories of rooms ([`super::kept`]): from 4 on.
    Histories,
    /// Questions about the members of rooms, and changes of a user's rooms ([`super::control`]): from 5 on.
    Memberships,
    /// Messages of histories of users, which it passes on to those who moved ([`super::kept`]): from 6 on.
    UserHistories,
    /// Questions whether it holds a user now ([`super::fences`]): from 7 on.
    HolderQuestions,
    /// Frames that clients post to its connections ([`super::posted`]): from 8 on.
    PostedFrames,
}

impl Ability {
    /// The ability that a lease with this value announces.
    pub(super) fn in_lease(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).unwrap_or_default();
        match text.parse::<u32>().unwrap_or_default() {
            0 | 1 => Self::Messages,
            2 => Self::Traces,
            3 => Self::Forwards,
            4 => Self::Histories,
            5 => Self::Memberships,
            6 => Self::UserHistories,
            7 => Self::HolderQuestions,
            _ => Self::PostedFrames,
        }
    }
}

/// The owner of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RouteName<'a> {
    User(&'a str),
    Room(&'a str),
}

/// Makes the names.
#[derive(Debug)]
pub(super) struct KeyNames {
    prefix: String,
    own_id: ServerId,
    compat: RedisCompat,
    command_timeout: Duration,
}

impl KeyNames {
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

    /// The other software that reads and writes them.
    pub(super) fn compat(&self) -> RedisCompat {
        self.compat
    }

    /// The longest time that a command may take.
    pub(super) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// The set of IDs of the servers that hold `name`. A user's ID is the rest of the key, whatever it contains, so
    /// no ID can form the key of another.
    pub(super) fn route(&self, name: RouteName<'_>) -> String {
        match name {
            RouteName::User(user) => format!("{}user_servers:{user}", self.prefix),
            RouteName::Room(room) => format!("{}room_servers:{room}", self.prefix),
        }
    }

    /// The epoch of a history, and the number of the last message. In the same slot of a cluster as
    /// [`KeyNames::history_log`].
    pub(super) fn history_head(&self, name: HistoryName<'_>) -> String {
        self.history(name, "head")
    }

    /// The messages of a history.
    pub(super) fn history_log(&self, name: HistoryName<'_>) -> String {
        self.history(name, "log")
    }

    /// The position of the message called `id` in a history, in the same slot. `id` contains no colon.
    pub(super) fn history_once(&self, name: HistoryName<'_>, id: &str) -> String {
        self.history(name, &format!("once:{id}"))
    }

    fn history(&self, name: HistoryName<'_>, part: &str) -> String {
        let (kind, name) = match name {
            HistoryName::Room(room) => ("room", room),
            HistoryName::User(user) => ("user", user),
        };
        format!(
            "{}{kind}_history:{{{}}}:{part}",
            self.prefix,
            hash_tag(name)
        )
    }

    /// The users in a room with presence, a field for each server and user.
    pub(super) fn members(&self, room: &str) -> String {
        format!("{}room_members:{room}", self.prefix)
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

    /// The channel on which nodes say which routes changed.
    pub(super) fn routes_channel(&self) -> String {
        format!("{}signalbox:routes", self.prefix)
    }

    /// The revocations, by their ends.
    pub(super) fn revoked(&self) -> String {
        format!("{}signalbox:revoked:until", self.prefix)
    }

    /// The claim or the answer of a message that is handled once.
    pub(super) fn once(&self, key: &OnceKey) -> String {
        format!("{}once:{}", self.prefix, key.as_str())
    }

    /// The channel on which nodes announce revocations.
    pub(super) fn revoked_channel(&self) -> String {
        format!("{}signalbox:revoked", self.prefix)
    }

    /// The key that `websocket-app` checks before it publishes. Server IDs contain no colon, so the last one ends the user's ID.
    pub(super) fn online(&self, user: &str, server: &str) -> String {
        format!("{}user_online:{user}:{server}", self.prefix)
    }
}

/// `name` in a form that braces around it make a hash tag: the tag ends at the first closing brace, and must not be empty.
/// Different names have different forms.
fn hash_tag(name: &str) -> Cow<'_, str> {
    if let Some(rest) = name.strip_prefix('}') {
        format!("%7D{rest}").into()
    } else if let Some(rest) = name.strip_prefix('%') {
        format!("%25{rest}").into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use signalbox_config::RedisMode;

    use super::*;

    #[test]
    fn a_lease_shows_the_features_of_its_server() {
        for (value, ability) in [
            ("1", Ability::Messages),
            ("2", Ability::Traces),
            ("3", Ability::Forwards),
            ("4", Ability::Histories),
            ("5", Ability::Memberships),
            ("6", Ability::UserHistories),
            ("7", Ability::HolderQuestions),
            (LEASE_VALUE, Ability::PostedFrames),
            ("17", Ability::PostedFrames),
            ("", Ability::Messages),
            ("yes", Ability::Messages),
        ] {
            assert_eq!(Ability::in_lease(value.as_bytes()), ability, "{value:?}");
        }
    }

    fn keys() -> KeyNames {
        let config = RedisConfig {
            urls: Vec::new(),
            mode: RedisMode::Auto,
            sentinel_master: None,
            ca_file: None,
            compat: RedisCompat::None,
            key_prefix: "p:".to_owned(),
            command_timeout: Duration::from_millis(500),
        };
        KeyNames::new(&config, "a-1")
    }

    /// The part of `key` that decides about its slot.
    fn slot_text(key: &str) -> &str {
        let tag = key
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        match tag {
            Some((tag, _)) if !tag.is_empty() => tag,
            _ => key,
        }
    }

    #[test]
    fn the_keys_of_a_history_share_a_slot_and_belong_to_one_room_or_user() {
        let keys = keys();
        let long = "😀".repeat(63);
        let names = [
            "r",
            "}",
            "}}",
            "{",
            "{}",
            "}{",
            "a}b",
            "{a}",
            "%",
            "%7D",
            "%257D",
            "%25",
            "a%7D",
            "a}",
            "}:log",
            "r}:head",
            "r}:once",
            "r}:once:1",
            &long,
        ];
        let mut all = HashSet::new();
        let both = |name| [HistoryName::Room(name), HistoryName::User(name)];
        for name in names.into_iter().flat_map(both) {
            let (head, log) = (keys.history_head(name), keys.history_log(name));
            let slot = slot_text(&head).to_owned();
            let once = ["1", "log", "head"].map(|id| keys.history_once(name, id));
            for key in [head, log].into_iter().chain(once) {
                assert_eq!(slot_text(&key), slot, "{name:?}");
                assert!(all.insert(key), "{name:?}");
            }
        }
        let (room, user) = (HistoryName::Room("r"), HistoryName::User("}a"));
        assert_eq!(keys.history_head(room), "p:room_history:{r}:head");
        assert_eq!(keys.history_log(user), "p:user_history:{%7Da}:log");
        let once = keys.history_once(room, "0af-1");
        assert_eq!(once, "p:room_history:{r}:once:0af-1");
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let keys = keys();
        assert_eq!(keys.route(RouteName::User("u:{*}")), "p:user_servers:u:{*}");
        assert_eq!(keys.route(RouteName::Room("r")), "p:room_servers:r");
        assert_eq!(keys.members("r"), "p:room_members:r");
        assert_eq!(keys.lease("a-1"), "p:server_alive:a-1");
        assert_eq!(keys.nodes(), "p:signalbox:nodes");
        assert_eq!(keys.server_channel("a-1"), "p:server:a-1");
        assert_eq!(keys.broadcast_channel(), "p:broadcast");
        assert_eq!(keys.routes_channel(), "p:signalbox:routes");
        assert_eq!(keys.revoked(), "p:signalbox:revoked:until");
        assert_eq!(keys.revoked_channel(), "p:signalbox:revoked");
        let key = OnceKey::of_user("u", "7");
        assert_eq!(keys.once(&key), "p:once:user:1:u:7");
        assert_eq!(keys.online("u", "a-1"), "p:user_online:u:a-1");
    }
}
