//! The rules of rooms and users, and the choice of the one that is in force for a room.

use std::{collections::HashMap, time::Duration};

/// `[[rooms]]`: the rules of all rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomsConfig {
    /// The rules for one room each, by its name.
    names: HashMap<Box<str>, RoomRule>,
    /// The rules for a prefix each, the longest prefix first.
    prefixes: Vec<(Box<str>, RoomRule)>,
    /// The rule of rooms that no other one is for.
    otherwise: RoomRule,
    has_histories: bool,
    has_presence: bool,
}

/// The rule of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomRule {
    /// The messages that are kept; if `None`, there are none.
    pub history: Option<HistoryRule>,
    /// The clients that may join.
    pub join: JoinRule,
    /// The senders.
    pub send: SendRule,
    /// Whether members can see which users are in the room.
    pub presence: bool,
    /// The most users in the room, on all nodes; 0 means no limit. Always 0 without `presence`.
    pub members_max: usize,
}

/// `[users]`: the rule of all users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsersConfig {
    /// The direct messages that are kept; if `None`, there are none.
    pub history: Option<HistoryRule>,
}

/// The messages of a room, or to a user, that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    /// The most messages, 1–10,000.
    pub size: usize,
    /// How long they are kept after the last one, 1 s – 30 days.
    pub time: Duration,
}

/// The clients that may join a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinRule {
    /// Any client.
    #[default]
    Open,
    /// Clients with a token that lists the room in its claim `rooms`.
    Claim,
    /// Clients that send a token for this room with their join. Only in mode `jwt`.
    Token,
    /// None by itself; backends add members.
    Backend,
}

/// The senders to a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendRule {
    /// Members and backends.
    #[default]
    Members,
    /// Backends only.
    Backend,
}

impl RoomsConfig {
    /// Each rule with its `match`, which no other one has: a name, a prefix that ends in `*`, or `*`.
    pub fn new<S: AsRef<str>>(rules: impl IntoIterator<Item = (S, RoomRule)>) -> Self {
        let mut config = Self::default();
        for (rooms, rule) in rules {
            config.has_histories |= rule.history.is_some();
            config.has_presence |= rule.presence;
            match rooms.as_ref().strip_suffix('*') {
                Some(prefix) => config.prefixes.push((prefix.into(), rule)),
                None => {
                    config.names.insert(rooms.as_ref().into(), rule);
                }
            }
        }
        config
            .prefixes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        config
    }

    /// The rule of a room: the one for its name, or else for the longest prefix, or else the default of every key.
    pub fn rule(&self, room: &str) -> &RoomRule {
        let by_prefix = || {
            let mut prefixes = self.prefixes.iter();
            let (_, rule) = prefixes.find(|(prefix, _)| room.starts_with(&**prefix))?;
            Some(rule)
        };
        let named = self.names.get(room).or_else(by_prefix);
        named.unwrap_or(&self.otherwise)
    }

    /// Whether any rule keeps a history.
    pub fn has_histories(&self) -> bool {
        self.has_histories
    }

    /// Whether any rule has presence.
    pub fn has_presence(&self) -> bool {
        self.has_presence
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A rule that `number` tells from others.
    fn numbered(number: usize) -> RoomRule {
        RoomRule {
            history: Some(HistoryRule {
                size: number,
                time: Duration::from_secs(1),
            }),
            ..RoomRule::default()
        }
    }

    /// Rules with the numbers of their places, from 1.
    fn rules(matches: &[&str]) -> RoomsConfig {
        RoomsConfig::new(matches.iter().zip((1..).map(numbered)))
    }

    #[test]
    fn the_closest_rule_wins_a_name_before_the_longest_prefix_and_the_default_comes_last() {
        const MATCHES: [&str; 6] = ["*", "chat:*", "chat:7", "chat:vip:*", "chat:vip:", "c*"];
        let all = rules(&MATCHES);
        let turned = RoomsConfig::new((1..=6).rev().map(|n| (MATCHES[n - 1], numbered(n))));
        for (room, number) in [
            ("chat:7", 3),
            ("chat:77", 2),
            ("chat:", 2),
            ("chat", 6),
            ("chat:vip:", 5),
            ("chat:vip:1", 4),
            ("chat:vip", 2),
            ("c", 6),
            ("Chat:7", 1),
            ("ärger", 1),
            ("*", 1),
        ] {
            assert_eq!(all.rule(room), &numbered(number), "{room}");
            assert_eq!(turned.rule(room), &numbered(number), "{room}");
        }
        let without_star = rules(&["chat:*", "lobby"]);
        for (room, rule) in [
            ("chat:1", numbered(1)),
            ("lobby", numbered(2)),
            ("lobby2", RoomRule::default()),
            ("lobb", RoomRule::default()),
        ] {
            assert_eq!(without_star.rule(room), &rule, "{room}");
        }
    }

    #[test]
    fn without_rules_rooms_are_open_and_keep_nothing() {
        let rule = RoomRule {
            history: None,
            join: JoinRule::Open,
            send: SendRule::Members,
            presence: false,
            members_max: 0,
        };
        assert_eq!(RoomsConfig::default().rule("chat:7"), &rule);
    }

    #[test]
    fn one_rule_with_a_history_is_enough_to_have_histories() {
        let plain = ("a", RoomRule::default());
        assert!(!RoomsConfig::default().has_histories());
        assert!(!RoomsConfig::new([plain]).has_histories());
        assert!(RoomsConfig::new([plain, ("b*", numbered(1))]).has_histories());
        assert!(RoomsConfig::new([("b", numbered(1)), plain]).has_histories());
    }

    #[test]
    fn one_rule_with_presence_is_enough_to_have_presence() {
        let plain = ("a", RoomRule::default());
        let seen = RoomRule {
            presence: true,
            ..RoomRule::default()
        };
        assert!(!RoomsConfig::new([plain]).has_presence());
        assert!(RoomsConfig::new([plain, ("b*", seen)]).has_presence());
    }

    proptest! {
        #[test]
        fn no_other_rule_matches_more_closely(
            matches in prop::collection::hash_set("[ab]{0,3}\\*|[ab]{1,3}", 0..8),
            room in "[abc]{1,4}",
        ) {
            let matches: Vec<&str> = matches.iter().map(String::as_str).collect();
            // A name is closer than each of its prefixes, and a longer prefix than a shorter one.
            let closeness = |rooms: &&&str| match rooms.strip_suffix('*') {
                Some(prefix) if room.starts_with(prefix) => Some(prefix.len()),
                None if **rooms == room => Some(usize::MAX),
                _ => None,
            };
            let matching = matches.iter().filter(|rooms| closeness(rooms).is_some());
            let closest = matching.max_by_key(closeness);
            let expected = closest.map_or_else(RoomRule::default, |closest| {
                let place = matches.iter().position(|rooms| rooms == closest);
                numbered(place.expect("it is one of them") + 1)
            });
            prop_assert_eq!(*rules(&matches).rule(&room), expected);
        }
    }
}
