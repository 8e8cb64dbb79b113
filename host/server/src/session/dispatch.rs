//! Handles a frame: built-in types in the host, everything else as the plugins decide.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use signalbox_pipeline::{self as pipeline, AccessDenied, Message, SeenVersions};
use signalbox_plugin_runtime::PluginVersion;
use signalbox_protocol::{
    CloseCode, Destination, Dialect, Envelope, ErrorCode,
    outbound::{self, AckStatus, ErrorPayload, SeenBy},
};
use signalbox_router::{CloseRequest, Connection};
use signalbox_telemetry::metrics::{OTHER, duration_of_ms, events::MessageRejected};
use tokio::time::Instant;

use super::{
    LiveConfig, Services,
    actions::{Actor, join, leave},
    outcome::NotSent,
};

/// The longest round-trip time that a client can report. A slower connection is closed by default (`server.idle_timeout`), and
/// one absurd value must not distort the mean.
const LATENCY_MS_MAX: f64 = 60_000.0;

/// One frame's context.
struct FrameContext<'a> {
    connection: &'a Arc<Connection>,
    actor: Actor<'a>,
    /// The frame's `id`, if the sender wants an `ack`.
    id: Option<&'a str>,
    /// The message ID. Every message has one; only senders that want an `ack` and their receivers see it.
    message_id: &'a str,
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
        span.set("messaging.message.id", message_id.to_string());
    }
    // Boxed: otherwise every idle connection would keep the memory for it.
    let wants_seen = envelope.id.is_some() && connection.traces_plugins();
    let seen = wants_seen.then(Box::<SeenVersions>::default);
    let context = FrameContext {
        connection,
        actor: Actor {
            trace: span.as_ref(),
            ..Actor::of(services, connection)
        },
        id: envelope.id.as_deref(),
        message_id: &message_id,
        seen: seen.as_deref(),
    };
    let result = if envelope.event_type.is_built_in() {
        Box::pin(context.built_in(&envelope)).await
    } else {
        context.custom(&envelope, arrived, live).await
    };
    context.answer(result);
}

impl FrameContext<'_> {
    /// Handles a message of a type that is not built in.
    async fn custom(
        &self,
        envelope: &Envelope<'_>,
        arrived: Instant,
        live: &LiveConfig,
    ) -> Result<AckStatus, NotSent> {
        let services = self.actor.services;
        // One set of versions for the whole message, even if plugins are swapped meanwhile.
        let plugins = services.manager.enter().await;
        let event_type = &*envelope.event_type;
        if !live.events.client.matches(event_type)
            && !pipeline::is_handled(&plugins, self.connection.user(), event_type)
        {
            return Err(NotSent::refused(
                ErrorCode::ForbiddenType,
                "clients may not send this type: it is not in `events.client`, and no plugin handles it",
            ));
        }
        services.metrics.messages.increment();
        let to = match (&envelope.receiver, &envelope.room) {
            (Some(user), _) => Some(Destination::User(user.borrowed())),
            (None, Some(room)) if !self.connection.is_member(room) => {
                return Err(NotSent::refused(
                    ErrorCode::NotInRoom,
                    "join the room before you send to it",
                ));
            }
            (None, Some(room)) => Some(Destination::Room(room.borrowed())),
            (None, None) => None,
        };
        let message = Message {
            id: self.message_id,
            event_type: envelope.event_type.borrowed(),
            sender: self.connection.user(),
            to,
            payload: Cow::Borrowed(envelope.payload),
            timestamp: SystemTime::now(),
            trace: self.actor.trace,
            seen: self.seen,
        };
        let outcome = pipeline::run(&plugins, Some(self.connection.client()), message).await;
        drop(plugins);
        // A client of websocket-app sends no `id`, so its receivers get no unknown field.
        let message_id = self.id.map(|_| self.message_id);
        let result = self.actor.conclude(outcome, message_id).await;
        services.metrics.delivery_latency.record(arrived.elapsed());
        result
    }

    async fn built_in(&self, envelope: &Envelope<'_>) -> Result<AckStatus, NotSent> {
        let room = |message| {
            let room = envelope.room.as_deref();
            room.ok_or_else(|| NotSent::refused(ErrorCode::InvalidRoom, message))
        };
        match &*envelope.event_type {
            "heartbeat" => Ok(AckStatus::Handled),
            "latency_report" => match serde_json::from_str::<f64>(envelope.payload) {
                Ok(ms) if (0.0..=LATENCY_MS_MAX).contains(&ms) => {
                    let metrics = &self.actor.services.metrics;
                    metrics.reported_latency.record(duration_of_ms(ms));
                    Ok(AckStatus::Handled)
                }
                _ => Err(NotSent::refused(
                    ErrorCode::InvalidPayload,
                    "the payload must be a number of milliseconds from 0 to 60000",
                )),
            },
            "join" => self.join(room("`room` names the room to join")?).await,
            "leave" => {
                let room = room("`room` names the room to leave")?;
                leave(self.actor.services, self.connection, room);
                Ok(AckStatus::Handled)
            }
            _ => Err(NotSent::refused(
                ErrorCode::ReservedType,
                "only the server sends this type",
            )),
        }
    }

    async fn join(&self, room: &str) -> Result<AckStatus, NotSent> {
        let services = self.actor.services;
        let plugins = services.manager.enter().await;
        let verdict = pipeline::authorize_join(&plugins, self.connection.client(), room).await;
        drop(plugins);
        verdict?;
        if join(services, self.connection, room).await {
            Ok(AckStatus::Handled)
        } else {
            Err(NotSent::refused(
                ErrorCode::TooManyRooms,
                "leave a room before you join another",
            ))
        }
    }

    /// Sends the client its `ack`, if it wants one, or the error.
    fn answer(&self, result: Result<AckStatus, NotSent>) {
        self.actor.record(&result);
        let frame = match (&result, self.id) {
            (Ok(status), Some(id)) => self.ack(id, *status),
            (Ok(_), None) => return,
            (
                Err(NotSent::Refused {
                    code,
                    message,
                    plugin,
                }),
                id,
            ) => ErrorPayload {
                plugin: plugin.as_deref(),
                ..ErrorPayload::new(id, *code, message)
            }
            .encode(),
            (Err(NotSent::Rejected { plugin, rejection }), id) => ErrorPayload {
                id,
                code: &rejection.code,
                message: &rejection.reason,
                plugin: Some(plugin),
                retryable: false,
            }
            .encode(),
        };
        let table = self.actor.services.router.table();
        table.push(self.connection, frame);
    }

    fn ack(&self, id: &str, status: AckStatus) -> outbound::Frame {
        let Some(seen) = self.seen else {
            return outbound::ack(id, self.message_id, status, None);
        };
        let versions = seen.versions();
        let seen_by: Vec<_> = versions.iter().map(|version| seen_by(version)).collect();
        outbound::ack(id, self.message_id, status, Some(&seen_by))
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
