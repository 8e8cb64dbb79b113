//! Messages from backends, which have no connection.

use std::time::SystemTime;

use signalbox_pipeline::{self as pipeline, Message, Outcome};
use signalbox_protocol::{Destination, EventType, outbound::AckStatus};
use signalbox_telemetry::trace::Trace;

pub use super::outcome::NotSent;
use super::{Services, actions::Actor};

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
}

/// Sends `posted` with the message ID `id` along the same path as clients' messages: through the plugins, unless it is
/// raw. Actions on a connection have no effect, because there is none.
///
/// # Errors
/// Returns [`NotSent`] with the reason if the message was not sent. Plugins may still have sent messages of their own.
pub async fn post(services: &Services, id: &str, posted: Posted<'_>) -> Result<AckStatus, NotSent> {
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
    };
    let result = actor.conclude(outcome, Some(id)).await;
    actor.record(result.as_ref().copied());
    result
}
