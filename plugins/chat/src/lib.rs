//! The chat plugin that comes with Signalbox: checks and cleans chat messages, and handles `chat.typing`, `chat.read`
//! and `chat.me`.
//!
//! The text of a `chat_message` is its payload if that is a string, or the field `text` of an object. It must be
//! neither blank nor too long. The plugin searches every string in the payload for blocked words. It passes on JSON
//! without a text, because only the application knows its meaning. It refuses a payload that receivers could read
//! differently.

mod text;

use serde::Deserialize;
use signalbox_plugin::{
    Action, Draft, Events, Message, Outcome, Plugin, Rejection, Transformation, Validation, config,
    payload,
};

use text::{Cleaner, Payload};

/// The chat plugin.
pub struct Chat {
    cleaner: Cleaner,
}

/// The plugin's `config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    max_text_chars: usize,
    blocked_words: Vec<String>,
    blocked_words_action: BlockedWordsAction,
}

/// The action for a message with a blocked word.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum BlockedWordsAction {
    Mask,
    Refuse,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_text_chars: 4000,
            blocked_words: Vec::new(),
            blocked_words_action: BlockedWordsAction::Mask,
        }
    }
}

impl Plugin for Chat {
    fn init(text: &str) -> Result<Self, String> {
        let config: Config = config::parse(text)?;
        if !(1..=65_536).contains(&config.max_text_chars) {
            return Err(format!(
                "max_text_chars is {}, it must be 1 to 65536",
                config.max_text_chars
            ));
        }
        if config.blocked_words.len() > 1000 {
            return Err(format!(
                "blocked_words has {} words, it may have 1000",
                config.blocked_words.len()
            ));
        }
        if let Some(word) = config
            .blocked_words
            .iter()
            .find(|word| !text::is_word(word))
        {
            return Err(format!(
                "blocked_words: `{word}` is no word of 1 to 64 letters and digits"
            ));
        }
        let refuse = config.blocked_words_action == BlockedWordsAction::Refuse;
        Ok(Self {
            cleaner: Cleaner::new(config.max_text_chars, &config.blocked_words, refuse),
        })
    }

    fn self_test(&self) -> Result<(), String> {
        if self.cleaner.check(" \t").is_ok() {
            return Err("a blank text was not refused".to_owned());
        }
        self.cleaner
            .check("ok")
            .map_err(|rejection| format!("a good text was refused: {}", rejection.reason))
    }
}

impl Validation for Chat {
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        match Self::payload(message)? {
            Some(payload) => self.check(&payload),
            None => Ok(()),
        }
    }
}

impl Transformation for Chat {
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection> {
        Ok(match Self::payload(message)? {
            Some(payload) => self.clean(message, &payload),
            None => Outcome::Unchanged,
        })
    }

    /// Does both and reads the payload only once.
    fn screen(&self, message: &Message) -> Result<Outcome, Rejection> {
        let Some(payload) = Self::payload(message)? else {
            return Ok(Outcome::Unchanged);
        };
        self.check(&payload)?;
        Ok(self.clean(message, &payload))
    }
}

impl Chat {
    /// Reads the payload if the plugin checks and cleans messages of this type.
    fn payload(message: &Message) -> Result<Option<Payload<'_>>, Rejection> {
        match message.event_type.as_str() {
            "chat_message" => Payload::read(message).map(Some),
            _ => Ok(None),
        }
    }

    /// Checks whether the payload may be sent.
    fn check(&self, payload: &Payload<'_>) -> Result<(), Rejection> {
        self.cleaner.check_others(payload)?;
        match payload.text() {
            Some(text) => self.cleaner.check(text),
            None => Ok(()),
        }
    }

    /// Returns the message with its texts cleaned.
    fn clean(&self, message: &Message, payload: &Payload<'_>) -> Outcome {
        match self.cleaner.cleaned(payload) {
            None => Outcome::Unchanged,
            Some(payload) => Outcome::Changed(Draft {
                event_type: message.event_type.clone(),
                destination: message.destination.clone(),
                payload,
            }),
        }
    }
}

#[derive(Deserialize)]
struct Typing {
    #[serde(rename = "typing")]
    _typing: bool,
}

#[derive(Deserialize)]
struct Read {
    #[serde(rename = "messageId")]
    message_id: String,
}

impl Events for Chat {
    fn event_types(&self) -> Vec<String> {
        ["chat.typing", "chat.read", "chat.me"]
            .map(str::to_owned)
            .to_vec()
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        match message.event_type.as_str() {
            "chat.typing" => {
                payload::parse::<Option<Typing>>(message)?;
                Ok(vec![Action::Deliver])
            }
            "chat.read" => match payload::parse::<Read>(message)?.message_id.as_str() {
                "" => Err(Rejection::new("invalid_payload", "messageId is empty")),
                _ => Ok(vec![Action::Deliver]),
            },
            _ => self.me(message),
        }
    }
}

impl Chat {
    /// Handles `chat.me`: sends its text in the third person, as a `chat_message`.
    fn me(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        let payload = Payload::read(message)?;
        let Some(text) = payload.text() else {
            return Err(Rejection::new(
                "invalid_payload",
                "the payload must be a string, or an object with a string `text`",
            ));
        };
        self.cleaner.check(text)?;
        let text = self.cleaner.clean(text).unwrap_or_else(|| text.to_owned());
        let said = serde_json::json!({"text": format!("* {} {text}", message.sender), "me": true});
        Ok(vec![Action::Send(payload::draft(
            "chat_message",
            message.destination.clone(),
            &said,
        )?)])
    }
}

signalbox_plugin::export!(Chat: validation, transformation, events);

#[cfg(test)]
mod tests;
