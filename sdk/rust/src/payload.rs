//! Converts payloads, which are JSON text, to and from Rust values.

mod mismatch;
mod strict;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Destination, Draft, Message, Rejection};

/// Parses the payload as a `T`, which may borrow from the message. A `&str`, or a struct with `&str` fields, is parsed
/// without a copy, but JSON with an escape in such a string is refused: use `String` or `Cow<str>` for text that people
/// write.
///
/// ```
/// use serde::Deserialize;
/// use signalbox_plugin::{payload, testing};
///
/// #[derive(Deserialize)]
/// struct Move<'m> {
///     from: &'m str,
///     to: &'m str,
/// }
///
/// let message = testing::message("game.move", r#"{"from":"e2","to":"e4"}"#);
/// let played: Move = payload::parse(&message)?;
/// assert_eq!((played.from, played.to), ("e2", "e4"));
/// # Ok::<(), signalbox_plugin::Rejection>(())
/// ```
///
/// # Errors
/// Returns a [`Rejection`] with code `invalid_payload` that says what is wrong, in JSON terms. JSON that receivers
/// could read differently is refused for every type: the same key twice in an object, half of a surrogate
/// pair, a number beyond 1.8e308, more than 100 levels.
pub fn parse<'m, T: Deserialize<'m>>(message: &'m Message) -> Result<T, Rejection> {
    // A string without an escape is unambiguous.
    if !message.payload.starts_with('"') || message.payload.contains('\\') {
        check(message)?;
    }
    serde_json::from_str(&message.payload).map_err(|error| invalid(&mismatch::reason(&error)))
}

/// Checks that every receiver reads the payload in the same way, without parsing it as a type.
///
/// # Errors
/// Refuses what [`parse`] refuses for every type.
pub fn check(message: &Message) -> Result<(), Rejection> {
    strict::check(&message.payload).map_err(invalid)
}

/// Returns every string value in the payload, at any depth. For plugins that search the text that people write,
/// regardless of the payload's structure.
///
/// ```
/// use signalbox_plugin::{payload, testing};
///
/// let message = testing::message("chat_message", r#"{"text":"hi","more":["you"]}"#);
/// assert_eq!(payload::texts(&message)?, ["hi", "you"]);
/// # Ok::<(), signalbox_plugin::Rejection>(())
/// ```
///
/// # Errors
/// Fails as [`check`] does.
pub fn texts(message: &Message) -> Result<Vec<Cow<'_, str>>, Rejection> {
    strict::texts(&message.payload).map_err(invalid)
}

fn invalid(problem: &str) -> Rejection {
    Rejection::new("invalid_payload", format!("the payload {problem}"))
}

/// Converts `payload` to JSON text.
///
/// # Errors
/// Returns a [`Rejection`] with code `invalid_payload` if it has no JSON form, such as a map whose keys are not
/// strings.
pub fn to_json<T: Serialize + ?Sized>(payload: &T) -> Result<String, Rejection> {
    serde_json::to_string(payload).map_err(|_| invalid("of the answer has no form in JSON"))
}

/// Creates a message with `payload` as JSON, like [`Draft::new`].
///
/// # Errors
/// Fails as [`to_json`] does.
pub fn draft<T: Serialize>(
    event_type: &str,
    to: Option<Destination>,
    payload: &T,
) -> Result<Draft, Rejection> {
    Draft::new(event_type, to, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_payload_that_does_not_fit_is_a_rejection() {
        let message = testing::message("a", r#"{"n":"x"}"#);
        assert_eq!(
            parse::<u32>(&message).map_err(|rejection| rejection.code),
            Err("invalid_payload".to_owned())
        );
        assert_eq!(
            draft("a", None, &[1, 2]).map(|draft| draft.payload),
            Ok("[1,2]".to_owned())
        );
    }

    #[test]
    fn a_value_without_a_json_form_is_a_rejection() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(
            to_json(&map).map_err(|rejection| rejection.code),
            Err("invalid_payload".to_owned())
        );
    }
}
