//! Payloads, which are JSON text, as Rust values.

mod mismatch;
mod strict;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Destination, Draft, Message, Rejection};

/// The payload as a `T`, which may borrow from the message: a `&str`, or a struct with `&str` fields, costs no copy
/// where the JSON holds no escape, and is refused where it does. Take `String` or `Cow<str>` for what people write.
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
/// A [`Rejection`] with code `invalid_payload` that says what is wrong, in the words of JSON. What receivers could read
/// differently is wrong for every type: the same key twice in an object, half of a surrogate pair, a number beyond 1.8e308,
/// more than 100 levels.
pub fn parse<'m, T: Deserialize<'m>>(message: &'m Message) -> Result<T, Rejection> {
    // A string without an escape can be read in one way alone.
    if !message.payload.starts_with('"') || message.payload.contains('\\') {
        check(message)?;
    }
    serde_json::from_str(&message.payload).map_err(|error| invalid(&mismatch::reason(&error)))
}

/// Whether every receiver reads the same in the payload, whatever it is.
///
/// # Errors
/// As [`parse`] of any type.
pub fn check(message: &Message) -> Result<(), Rejection> {
    strict::check(&message.payload).map_err(invalid)
}

/// Every text that is a value in the payload, wherever it stands: for plugins that look for something in what people write,
/// whatever shape a client gives it.
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
/// As [`parse`].
pub fn texts(message: &Message) -> Result<Vec<Cow<'_, str>>, Rejection> {
    strict::texts(&message.payload).map_err(invalid)
}

fn invalid(problem: &str) -> Rejection {
    Rejection::new("invalid_payload", format!("the payload {problem}"))
}

/// `payload` as JSON text.
///
/// # Errors
/// A [`Rejection`] with code `invalid_payload` where it has no JSON form, such as a map with keys that are no strings.
pub fn to_json<T: Serialize + ?Sized>(payload: &T) -> Result<String, Rejection> {
    serde_json::to_string(payload).map_err(|_| invalid("of the answer has no form in JSON"))
}

/// A message with `payload` as JSON; [`Draft::new`] does the same.
///
/// # Errors
/// As [`to_json`].
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
    fn what_has_no_json_form_is_a_rejection() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(
            to_json(&map).map_err(|rejection| rejection.code),
            Err("invalid_payload".to_owned())
        );
    }
}
