//! Payloads, which are JSON text, as Rust values.

use serde::{Deserialize, Serialize};

use crate::{Destination, Draft, Message, Rejection};

/// The payload as a `T`, which may borrow from the message.
///
/// # Errors
/// A [`Rejection`] with code `invalid_payload` that says what is wrong and where.
pub fn parse<'m, T: Deserialize<'m>>(message: &'m Message) -> Result<T, Rejection> {
    serde_json::from_str(&message.payload)
        .map_err(|error| Rejection::new("invalid_payload", error.to_string()))
}

/// A message with `payload` as JSON.
///
/// # Errors
/// A [`Rejection`] with code `invalid_payload` where `payload` has no JSON form, such as a map with keys that are no
/// strings.
pub fn draft<T: Serialize>(
    event_type: &str,
    to: Option<Destination>,
    payload: &T,
) -> Result<Draft, Rejection> {
    let payload = serde_json::to_string(payload)
        .map_err(|error| Rejection::new("invalid_payload", error.to_string()))?;
    Ok(Draft {
        event_type: event_type.to_owned(),
        destination: to,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_does_not_fit_is_a_rejection() {
        let message = Message {
            id: "1".into(),
            event_type: "a".into(),
            sender: "u".into(),
            destination: None,
            payload: r#"{"n":"x"}"#.into(),
            timestamp: 0,
        };
        assert_eq!(
            parse::<u32>(&message).map_err(|rejection| rejection.code),
            Err("invalid_payload".to_owned())
        );
        assert_eq!(
            draft("a", None, &[1, 2]).map(|draft| draft.payload),
            Ok("[1,2]".to_owned())
        );
    }
}
