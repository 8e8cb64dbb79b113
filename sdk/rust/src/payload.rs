//! Payloads, which are JSON text, as Rust values.

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
/// A [`Rejection`] with code `invalid_payload` that says what is wrong and where.
pub fn parse<'m, T: Deserialize<'m>>(message: &'m Message) -> Result<T, Rejection> {
    serde_json::from_str(&message.payload)
        .map_err(|error| Rejection::new("invalid_payload", error.to_string()))
}

/// `payload` as JSON text.
///
/// # Errors
/// A [`Rejection`] with code `invalid_payload` where it has no JSON form, such as a map with keys that are no strings.
pub fn to_json<T: Serialize + ?Sized>(payload: &T) -> Result<String, Rejection> {
    serde_json::to_string(payload)
        .map_err(|error| Rejection::new("invalid_payload", error.to_string()))
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
