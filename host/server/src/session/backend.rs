//! Messages from backends, which have no connection.

use std::time::SystemTime;

use signalbox_pipeline::{self, Message, Outcome};
use signalbox_plugin_runtime::{Action, Rejection};
use signalbox_protocol::{
    Destination, ErrorCode,
    outbound::{AckStatus, Delivery},
};
use signalbox_telemetry::{
    metrics::{
        DropReason,
        events::{MessageRejected, MessageRejectedByPlugin},
    },
    trace::Trace,
};
use tracing::debug;

use super::{
    Services,
    actions::{connection_gone, dropped, perform_without_connection, receiver, room, send},
    dispatch::UNAVAILABLE,
};

/// A message from a backend that respects the limits of the WebSocket protocol.
#[derive(Debug)]
pub struct Posted<'a> {
    /// The event type, well-formed and not built in.
    pub event_type: &'a str,
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

/// Why a message was not sent.
#[derive(Debug)]
pub enum NotSent {
    /// The server refused it.
    Refused {
        /// The code, for programs.
        code: ErrorCode,
        /// The message, for people.
        message: String,
        /// The plugin that failed.
        plugin: Option<String>,
    },
    /// A plugin rejected it.
    Rejected {
        /// The plugin's name.
        plugin: String,
        /// The plugin's reason.
        rejection: Rejection,
    },
}

/// Sends `posted` with the message ID `id` along the same path as clients' messages: through the plugins, unless it is
/// raw. Actions on a connection have no effect, because there is none.
///
/// # Errors
/// Returns [`NotSent`] with the reason if the message was not sent. Plugins may still have sent messages of their own.
pub async fn post(services: &Services, id: &str, posted: Posted<'_>) -> Result<AckStatus, NotSent> {
    let message = Message {
        id,
        event_type: posted.event_type.into(),
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
        signalbox_pipeline::run(&*services.manager.enter().await, None, message).await
    };
    let concluded = conclude(services, outcome).await;
    if let Err(NotSent::Refused { code, .. }) = &concluded {
        let (metrics, code) = (&services.metrics, *code);
        MessageRejected { metrics, code }.emit();
    }
    concluded
}

async fn conclude(services: &Services, outcome: Outcome<'_>) -> Result<AckStatus, NotSent> {
    match outcome {
        Outcome::Route(message) => deliver(services, &message).await,
        Outcome::Handled { message, actions } => {
            let mut status = Ok(AckStatus::Handled);
            for action in actions {
                match action {
                    Action::Deliver => status = deliver(services, &message).await,
                    other => {
                        let trace = message.trace;
                        perform_without_connection(services, message.sender, other, trace).await;
                    }
                }
            }
            status
        }
        Outcome::Dropped => {
            dropped(services, DropReason::Plugin);
            Ok(AckStatus::Handled)
        }
        Outcome::Rejected { plugin, rejection } => {
            MessageRejectedByPlugin {
                metrics: &services.metrics,
                plugin: &plugin,
                code: &rejection.code,
            }
            .emit();
            Err(NotSent::Rejected { plugin, rejection })
        }
        Outcome::Failed { plugin } => Err(NotSent::Refused {
            code: ErrorCode::PluginFailed,
            message: "a plugin failed to handle the message".to_owned(),
            plugin: Some(plugin),
        }),
    }
}

async fn deliver(services: &Services, message: &Message<'_>) -> Result<AckStatus, NotSent> {
    let refused = |code, message: &str| NotSent::Refused {
        code,
        message: message.to_owned(),
        plugin: None,
    };
    let to = match &message.to {
        // A plugin returned the message to its sender, which has no connection.
        Some(Destination::Sender) => {
            connection_gone(services);
            return Ok(AckStatus::Offline);
        }
        Some(to) => to,
        None => {
            return Err(refused(
                ErrorCode::NoReceiver,
                "name `receiverId`, `room` or `everyone`: no plugin handles this type",
            ));
        }
    };
    let delivery = Delivery {
        event_type: &message.event_type,
        payload: &message.payload,
        receiver: receiver(to, message.sender),
        sender: message.sender,
        timestamp: message.timestamp,
        room: room(to),
        message_id: Some(message.id),
    };
    match send(services, None, to, &delivery, message.trace).await {
        Ok(true) => Ok(AckStatus::Delivered),
        Ok(false) => Ok(AckStatus::Offline),
        Err(error) => {
            debug!(%error, "a message was not sent");
            Err(refused(ErrorCode::Unavailable, UNAVAILABLE))
        }
    }
}
