//! Counts strikes for blocked words. A message with a blocked word is not delivered, and its sender gets a warning. A
//! user with too many strikes is disconnected and banned temporarily.
//!
//! The plugin handles `chat_message` itself, because only a handler can warn and disconnect. It delivers messages
//! without blocked words.

use serde::{Deserialize, Serialize};
use signalbox_plugin::{
    Action, Client, Connections, Disconnection, Events, Message, Plugin, Rejection, config, export,
    metrics, payload, store,
};

/// The close code for a user who is removed: clients do not reconnect by themselves.
const KICKED: u16 = 4501;

/// The plugin. Its only state is its configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moderation {
    /// Matched as whole words, ignoring case.
    blocked_words: Vec<String>,
    /// The number of strikes after which a user is disconnected.
    #[serde(default = "three")]
    strikes_max: u32,
    /// How long strikes count and how long a ban lasts, in seconds.
    #[serde(default = "ten_minutes")]
    strike_seconds: u32,
}

fn three() -> u32 {
    3
}

fn ten_minutes() -> u32 {
    600
}

/// The payload of `moderation.warning`.
#[derive(Serialize)]
struct Warning<'w> {
    word: &'w str,
    strikes: i64,
    strikes_max: u32,
}

impl Plugin for Moderation {
    fn init(config: &str) -> Result<Self, String> {
        let mut rules: Self = config::parse(config)?;
        if rules
            .blocked_words
            .iter()
            .any(|word| word.trim().is_empty())
        {
            return Err("blocked_words holds an empty word".to_owned());
        }
        if rules.strikes_max == 0 || rules.strike_seconds == 0 {
            return Err("strikes_max and strike_seconds must be 1 or more".to_owned());
        }
        for word in &mut rules.blocked_words {
            *word = word.trim().to_lowercase();
        }
        Ok(rules)
    }
}

impl Moderation {
    /// Returns the first blocked word in `text`.
    fn blocked(&self, text: &str) -> Option<&str> {
        let text = text.to_lowercase();
        let mut words = text.split(|c: char| !c.is_alphanumeric());
        words.find_map(|word| {
            let blocked = self.blocked_words.iter().find(|blocked| *blocked == word);
            blocked.map(String::as_str)
        })
    }

    /// Counts a strike of `user` and returns the resulting actions.
    fn strike(&self, user: &str, word: &str) -> Result<Vec<Action>, Rejection> {
        // The expiry is set by the first strike; all strikes expire together.
        let strikes = store::increment(&strikes_of(user), 1, Some(self.strike_seconds))?;
        metrics::count("strikes", 1);
        let warning = Warning {
            word,
            strikes,
            strikes_max: self.strikes_max,
        };
        let mut actions = vec![Action::reply("moderation.warning", &warning)?];
        if strikes >= i64::from(self.strikes_max) {
            metrics::count("kicks", 1);
            store::set(&ban_of(user), b"1", Some(self.strike_seconds))?;
            store::remove(&strikes_of(user))?;
            actions.push(Action::Disconnect(Disconnection::new(
                KICKED,
                "too many strikes",
            )));
        }
        Ok(actions)
    }
}

impl Events for Moderation {
    fn event_types(&self) -> Vec<String> {
        vec!["chat_message".to_owned()]
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        let texts = payload::texts(message)?;
        match texts.iter().find_map(|text| self.blocked(text)) {
            Some(word) => self.strike(&message.sender, word),
            None => Ok(vec![Action::Deliver]),
        }
    }
}

impl Connections for Moderation {
    fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection> {
        match store::get(&ban_of(&client.user))? {
            Some(_) => Err(Rejection::new(
                "banned",
                "you were thrown out; come back later",
            )),
            None => Ok(Vec::new()),
        }
    }

    fn disconnected(&self, _client: &Client, _how: &Disconnection) -> Vec<Action> {
        Vec::new()
    }
}

fn strikes_of(user: &str) -> String {
    format!("strikes:{user}")
}

fn ban_of(user: &str) -> String {
    format!("ban:{user}")
}

export!(Moderation: events, connections);

#[cfg(test)]
mod tests {
    use signalbox_plugin::testing::{client, message};

    use super::*;

    fn plugin() -> Moderation {
        Moderation::init(r#"{"blocked_words":["Darn"],"strikes_max":2}"#).expect("good rules")
    }

    #[test]
    fn words_are_blocked_whole_and_in_any_case() {
        let plugin = plugin();
        assert_eq!(plugin.blocked("oh DARN, it"), Some("darn"));
        assert_eq!(plugin.blocked("darning socks"), None);
    }

    #[test]
    fn a_word_counts_wherever_a_client_puts_it_and_what_cannot_be_read_is_refused() {
        let plugin = plugin();
        let handle = |payload: &str| plugin.handle(&message("chat_message", payload));
        let delivered = |payload: &str| handle(payload) == Ok(vec![Action::Deliver]);
        for payload in [
            r#"["darn"]"#,
            r#"{"text":"hi","body":"darn"}"#,
            r#"{"text":{"a":["d\u0061rn"]}}"#,
        ] {
            assert!(!delivered(payload), "{payload}");
        }
        for payload in ["7", "{}", r#"{"darn":"hi"}"#] {
            assert!(delivered(payload), "{payload}");
        }
        for payload in [r#""darn \ud83d""#, r#"{"text":"darn","text":"hi"}"#, "{"] {
            let refused = handle(payload).expect_err("it cannot be read");
            assert_eq!(refused.code, "invalid_payload", "{payload}");
        }
    }

    #[test]
    fn the_last_strike_throws_out_and_keeps_out() {
        let plugin = plugin();
        let bad = message("chat_message", r#"{"text":"darn"}"#);
        assert!(plugin.connected(&client("ann")).is_ok());
        assert_eq!(plugin.handle(&bad).map(|actions| actions.len()), Ok(1));
        let last = plugin.handle(&bad).expect("the store works");
        assert!(matches!(&last[1], Action::Disconnect(how) if how.code == KICKED));
        assert!(plugin.connected(&client("ann")).is_err());
        assert!(plugin.connected(&client("bob")).is_ok());
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for config in [
            "{}",
            r#"{"blocked_words":[" "]}"#,
            r#"{"blocked_words":[],"strikes_max":0}"#,
            r#"{"blocked_words":[],"strike_max":2}"#,
        ] {
            assert!(Moderation::init(config).is_err(), "{config}");
        }
    }
}
