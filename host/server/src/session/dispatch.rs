//! Handles a frame: built-in types in the host, everything else as the plugins decide.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use signalbox_config::Limits;
use signalbox_pipeline::{self as pipeline, AccessDenied, Message, Outcome, SeenVersions};
use signalbox_plugin_runtime::{Action, PluginVersion};
use signalbox_protocol::{
    CloseCode, Destination, Dialect, Envelope, ErrorCode, event_type,
    outbound::{self, AckStatus, Delivery, ErrorPayload, SeenBy},
};
use signalbox_router::{CloseRequest, Connection};
use signalbox_telemetry::{
    metrics::{
        DropReason, OTHER, duration_of_ms,
        events::{MessageRejected, MessageRejectedByPlugin},
    },
    trace::Trace,
};
use tokio::time::Instant;
use tracing::debug;

use super::{
    LiveConfig, Services,
    actions::{dropped, join, leave, perform, receiver, room, send},
};

/// The longest round-trip time that a client can report. A slower connection is closed by default (`server.idle_timeout`), and
/// one absurd value must not distort the mean.
const LATENCY_MS_MAX: f64 = 60_000.0;

/// The only text that clients get about a failing broker; the details are in the log.
pub(super) const UNAVAILABLE: &str =
    "the message could not be sent to the node of its receiver; try again";

/// One frame's context.
struct FrameContext<'a> {
    services: &'a Services,
    connection: &'a Arc<Connection>,
    /// The frame's `id`, if the sender wants an `ack`.
    id: Option<&'a str>,
    /// The message ID. Every message has one; only senders that want an `ack` and their receivers see it.
    message_id: &'a str,
    /// The span of the message, if it is traced.
    trace: Trace<'a>,
    /// The versions of the plugins that saw it, if the sender wants them and is allowed to see them.
    seen: Option<&'a SeenVersions>,
}

/// Handles the text frame `text`, which arrived at `arrived`.
pub(super) async fn frame(
    services: &Services,
    connection: &Arc<Connection>,
    text: &str,
    arrived: Instant,
    live: &LiveConfig,
) {
    let limits = &live.limits;
    let envelope = match Envelope::parse_as(text, dialect(connection)) {
        Ok(envelope) => envelope,
        Err(error) => {
            services.metrics.messages_by_type.count(OTHER);
            return reject(
                services,
                connection,
                error.id.as_deref(),
                error.code,
                &error.message,
            );
        }
    };
    services
        .metrics
        .messages_by_type
        .count(&envelope.event_type);
    let message_id = services.ids.next();
    let span = services.tracer.begin("message");
    if let Some(span) = &span {
        span.set("signalbox.type", envelope.event_type.to_string());
        span.set(
            "signalbox.connection",
            connection.client().connection.clone(),
        );
        span.set("messaging.message.id", message_id.clone());
    }
    // Boxed: otherwise every idle connection would keep the memory for it.
    let wants_seen = envelope.id.is_some() && connection.traces_plugins();
    let seen = wants_seen.then(Box::<SeenVersions>::default);
    let turn = FrameContext {
        services,
        connection,
        id: envelope.id.as_deref(),
        message_id: &message_id,
        trace: span.as_ref(),
        seen: seen.as_deref(),
    };
    if event_type::is_built_in(&envelope.event_type) {
        return Box::pin(turn.built_in(&envelope, limits)).await;
    }
    // One set of versions for the whole message, even if plugins are swapped meanwhile.
    let plugins = services.manager.enter().await;
    let event_type = &*envelope.event_type;
    if !live.events.client.matches(event_type)
        && !pipeline::is_handled(&plugins, connection.user(), event_type)
    {
        return turn.error(
            ErrorCode::ForbiddenType,
            "clients may not send this type: it is not in `events.client`, and no plugin handles it",
        );
    }
    services.metrics.messages.increment();
    let to = match (&envelope.receiver, &envelope.room) {
        (Some(user), _) => Some(Destination::User(Cow::Borrowed(&**user))),
        (None, Some(room)) if !connection.is_member(room) => {
            return turn.error(ErrorCode::NotInRoom, "join the room before you send to it");
        }
        (None, Some(room)) => Some(Destination::Room(Cow::Borrowed(&**room))),
        (None, None) => None,
    };
    let message = Message {
        id: &message_id,
        event_type: Cow::Borrowed(&envelope.event_type),
        sender: connection.user(),
        to,
        payload: Cow::Borrowed(envelope.payload),
        timestamp: SystemTime::now(),
        trace: turn.trace,
        seen: turn.seen,
    };
    let outcome = pipeline::run(&plugins, Some(connection.client()), message).await;
    drop(plugins);
    turn.conclude(outcome, limits).await;
    services.metrics.delivery_latency.record(arrived.elapsed());
}

impl FrameContext<'_> {
    async fn conclude(&self, outcome: Outcome<'_>, limits: &Limits) {
        match outcome {
            Outcome::Route(message) => self.route(&message).await,
            Outcome::Handled { message, actions } => {
                Box::pin(self.carry_out(&message, actions, limits)).await;
            }
            Outcome::Dropped => {
                dropped(self.services, DropReason::Plugin);
                self.ack(AckStatus::Handled);
            }
            Outcome::Rejected { plugin, rejection } => {
                MessageRejectedByPlugin {
                    metrics: &self.services.metrics,
                    plugin: &plugin,
                    code: &rejection.code,
                }
                .emit();
                if let Some(span) = self.trace {
                    span.set("signalbox.rejection", rejection.code.clone());
                }
                self.push(
                    ErrorPayload {
                        id: self.id,
                        code: &rejection.code,
                        message: &rejection.reason,
                        plugin: Some(&plugin),
                        retryable: false,
                    }
                    .encode(),
                );
            }
            Outcome::Failed { plugin } => {
                let code = ErrorCode::PluginFailed;
                let metrics = &self.services.metrics;
                if let Some(span) = self.trace {
                    span.fail(code.as_str());
                }
                MessageRejected { metrics, code }.emit();
                let payload =
                    ErrorPayload::new(self.id, code, "a plugin failed to handle the message");
                self.push(
                    ErrorPayload {
                        plugin: Some(&plugin),
                        ..payload
                    }
                    .encode(),
                );
            }
        }
    }

    async fn carry_out(&self, message: &Message<'_>, actions: Vec<Action>, limits: &Limits) {
        let mut status = Some(AckStatus::Handled);
        for action in actions {
            match action {
                Action::Deliver => status = self.deliver(message).await,
                other => {
                    perform(self.services, self.connection, other, limits, self.trace).await;
                }
            }
        }
        if let Some(status) = status {
            self.ack(status);
        }
    }

    async fn route(&self, message: &Message<'_>) {
        if let Some(status) = self.deliver(message).await {
            self.ack(status);
        }
    }

    /// Delivers the message to its destination. Returns `None` if it has none or could not be sent; the sender has then
    /// received an error.
    async fn deliver(&self, message: &Message<'_>) -> Option<AckStatus> {
        let Some(to) = &message.to else {
            self.error(
                ErrorCode::NoReceiver,
                "name a `receiverId` or a `room`: no plugin handles this type",
            );
            return None;
        };
        let delivery = Delivery {
            event_type: &message.event_type,
            payload: &message.payload,
            receiver: receiver(to, self.connection.user()),
            sender: message.sender,
            timestamp: message.timestamp,
            room: room(to),
            // A client of websocket-app sends no `id`, so its receivers get no unknown field.
            message_id: self.id.map(|_| self.message_id),
        };
        let connection = Some(self.connection);
        match send(self.services, connection, to, &delivery, self.trace).await {
            Ok(true) => Some(AckStatus::Delivered),
            Ok(false) => Some(AckStatus::Offline),
            Err(error) => {
                debug!(%error, "a message was not sent");
                self.error(ErrorCode::Unavailable, UNAVAILABLE);
                None
            }
        }
    }

    async fn built_in(&self, envelope: &Envelope<'_>, limits: &Limits) {
        match &*envelope.event_type {
            "heartbeat" => self.ack(AckStatus::Handled),
            "latency_report" => match serde_json::from_str::<f64>(envelope.payload) {
                Ok(ms) if (0.0..=LATENCY_MS_MAX).contains(&ms) => {
                    self.services
                        .metrics
                        .reported_latency
                        .record(duration_of_ms(ms));
                    self.ack(AckStatus::Handled);
                }
                _ => self.error(
                    ErrorCode::InvalidPayload,
                    "the payload must be a number of milliseconds from 0 to 60000",
                ),
            },
            "join" => match &envelope.room {
                Some(room) => self.join(room, limits).await,
                None => self.error(ErrorCode::InvalidRoom, "`room` names the room to join"),
            },
            "leave" => match &envelope.room {
                Some(room) => self.leave(room),
                None => self.error(ErrorCode::InvalidRoom, "`room` names the room to leave"),
            },
            _ => self.error(ErrorCode::ReservedType, "only the server sends this type"),
        }
    }

    async fn join(&self, room: &str, limits: &Limits) {
        let plugins = self.services.manager.enter().await;
        let verdict = pipeline::authorize_join(&plugins, self.connection.client(), room).await;
        drop(plugins);
        match verdict {
            Ok(()) if join(self.services, self.connection, room, limits).await => {
                self.ack(AckStatus::Handled)
            }
            Ok(()) => self.error(
                ErrorCode::TooManyRooms,
                "leave a room before you join another",
            ),
            Err(AccessDenied::Rejected { plugin, rejection }) => {
                self.conclude(Outcome::Rejected { plugin, rejection }, limits)
                    .await;
            }
            Err(AccessDenied::Failed { plugin }) => {
                self.conclude(Outcome::Failed { plugin }, limits).await
            }
        }
    }

    fn leave(&self, room: &str) {
        leave(self.services, self.connection, room);
        self.ack(AckStatus::Handled);
    }

    fn ack(&self, status: AckStatus) {
        if let Some(span) = self.trace {
            span.set("signalbox.status", status.as_str());
        }
        if let Some(id) = self.id {
            let Some(seen) = self.seen else {
                return self.push(outbound::ack(id, self.message_id, status, None));
            };
            let versions = seen.versions();
            let seen_by: Vec<_> = versions.iter().map(|version| seen_by(version)).collect();
            self.push(outbound::ack(id, self.message_id, status, Some(&seen_by)));
        }
    }

    fn error(&self, code: ErrorCode, message: &str) {
        if let Some(span) = self.trace {
            span.fail(code.as_str());
        }
        reject(self.services, self.connection, self.id, code, message);
    }

    fn push(&self, frame: outbound::Frame) {
        self.services.router.table().push(self.connection, frame);
    }
}

fn dialect(connection: &Connection) -> Dialect {
    if connection.v1() {
        Dialect::V1
    } else {
        Dialect::WebsocketApp
    }
}

/// A version as an `ack` names it.
fn seen_by(version: &PluginVersion) -> SeenBy<'_> {
    let declared = version.declared_version();
    SeenBy {
        name: version.name(),
        version: (!declared.is_empty()).then_some(declared),
        sha256: version.label(),
    }
}

/// Rejects a binary frame that is not UTF-8.
pub(super) fn not_utf8(services: &Services, connection: &Arc<Connection>) {
    reject(
        services,
        connection,
        None,
        ErrorCode::InvalidFrame,
        "the frame is not UTF-8",
    );
}

/// Rejects a rate-limited message. `text` is `Some` if its `id` should be read.
pub(super) fn rate_limited(services: &Services, connection: &Arc<Connection>, text: Option<&str>) {
    let envelope = text.and_then(|text| Envelope::parse_as(text, dialect(connection)).ok());
    let id = envelope
        .as_ref()
        .and_then(|envelope| envelope.id.as_deref());
    reject(
        services,
        connection,
        id,
        ErrorCode::RateLimited,
        "too many messages; send slower",
    );
}

fn reject(
    services: &Services,
    connection: &Arc<Connection>,
    id: Option<&str>,
    code: ErrorCode,
    message: &str,
) {
    let metrics = &services.metrics;
    MessageRejected { metrics, code }.emit();
    services
        .router
        .table()
        .push(connection, ErrorPayload::new(id, code, message).encode());
}

/// The close request for a connection that the plugins did not admit.
pub(super) fn refusal(refused: &AccessDenied) -> CloseRequest {
    match refused {
        AccessDenied::Rejected { rejection, .. } => CloseRequest {
            code: CloseCode::REFUSED,
            reason: format!("{}: {}", rejection.code, rejection.reason),
        },
        AccessDenied::Failed { .. } => CloseRequest {
            code: CloseCode::PLUGIN_FAILED,
            reason: "a plugin failed; try again".to_owned(),
        },
    }
}
