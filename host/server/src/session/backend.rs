//! Messages from backends, which have no connection, and what backends may read of rooms.

use std::time::SystemTime;

use signalbox_pipeline::{self as pipeline, Message, Outcome};
use signalbox_protocol::{Destination, EventType, HistoryExcerpt, HistoryRequest, Position};
use signalbox_telemetry::trace::Trace;

use super::{Services, actions::Actor, once::OnceMessage, rooms};
pub use super::{not_sent::NotSent, outcome::Conclusion};

/// A message from a backend that respects the limits of the WebSocket protocol.
#[derive(Debug)]
pub struct Posted<'a> {
    /// The event type, which is not built in.
    pub event_type: EventType<'a>,
    /// The user in whose name it is sent; empty for the platform.
    pub sender: &'a str,
    /// `None` if no receiver is named.
    pub to: Option<Destination<'a>>,
    /// The payload, as JSON text.
    pub payload: &'a str,
    /// Whether the message bypasses the plugins.
    pub raw: bool,
    /// The span of the request, if it is traced.
    pub trace: Trace<'a>,
    /// The message, if it is handled once although the backend may repeat it.
    pub once: Option<&'a OnceMessage>,
}

/// Sends `posted` with the message ID `id` along the same path as clients' messages: through the plugins, unless it is
/// raw. Actions on a connection have no effect, because there is none.
///
/// # Errors
/// Returns [`NotSent`] with the reason if the message was not sent. Plugins may still have sent messages of their own.
pub async fn post(
    services: &Services,
    id: &str,
    posted: Posted<'_>,
) -> Result<Conclusion, NotSent> {
    let message = Message {
        id,
        event_type: posted.event_type,
        sender: posted.sender,
        to: posted.to,
        payload: posted.payload.into(),
        timestamp: SystemTime::now(),
        trace: posted.trace,
        seen: None,
    };
    let outcome = if posted.raw {
        Outcome::Route(message)
    } else {
        // One set of versions for the whole message, even if plugins are swapped meanwhile.
        pipeline::run(&*services.manager.enter().await, None, message).await
    };
    let actor = Actor {
        services,
        connection: None,
        user: posted.sender,
        trace: posted.trace,
        member: None,
        once: posted.once,
    };
    let result = actor.conclude(outcome, Some(id)).await;
    actor.record(result.as_ref().map(|conclusion| conclusion.status));
    result
}

/// Reads messages of the history of `room`, as many as the limits for clients allow.
///
/// # Errors
/// Returns [`NotSent`] if the room has no history, or if it cannot be read.
pub async fn read_history(
    services: &Services,
    room: &str,
    request: HistoryRequest,
) -> Result<HistoryExcerpt, NotSent> {
    rooms::find_history(services, room, request).await
}

/// The position of the history of `room`; `None` if the room has none.
///
/// # Errors
/// Returns [`NotSent`] if it cannot be read.
pub async fn history_position(
    services: &Services,
    room: &str,
) -> Result<Option<Position>, NotSent> {
    rooms::position(services, room).await
}
