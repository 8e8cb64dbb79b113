//! Handles a frame: built-in types in the host, everything else as the plugins decide.

mod repetition;
mod room_frames;

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use signalbox_config::SendRule;
use signalbox_pipeline::{self as pipeline, AccessDenied, Message, SeenVersions};
use signalbox_plugin_runtime::PluginVersion;
use signalbox_protocol::{
    ClientInfo, CloseCode, Destination, Dialect, Envelope, ErrorCode, Frame, HistoryExcerpt,
    RoomPosition,
    outbound::{AckPayload, AckStatus, ErrorPayload, SeenBy},
};
use signalbox_router::{CloseRequest, Connection};
use signalbox_telemetry::metrics::{OTHER, duration_of_ms, events::MessageRejected};
use tokio::time::Instant;

use super::{
    LiveConfig, Services,
    actions::Actor,
    not_sent::NotSent,
    once::OnceMessage,
    outcome::Conclusion,
    token::{self, Replacement},
};

/// The longest round-trip time that a client can report. A slower connection is closed by default (`server.idle_timeout`), and
/// one absurd value must not distort the mean.
const LATENCY_MS_MAX: f64 = 60_000.0;

/// A change of the session that a frame brought about.
pub(super) enum SessionChange {
    /// This token replaces that of the connection.
    Token(Box<Replacement>),
    /// The membership of a room ends with a token from now on.
    RoomToken,
}

/// One frame's context.
struct FrameContext<'a> {
    connection: &'a Arc<Connection>,
    client: &'a Arc<ClientInfo>,
    actor: Actor<'a>,
    /// The frame's `id`, if the sender wants an `ack`.
    id: Option<&'a str>,
    /// The message ID. Every message has one; only senders that want an `ack` and their receivers see it.
    message_id: &'a str,
    /// The versions of the plugins that saw it, if the sender wants them and is allowed to see them.
    seen: Option<&'a SeenVersions>,
}

/// The result of a frame that was handled.
struct Answer {
    status: AckStatus,
    /// The place in the history of the room that was joined.
    room: Option<RoomPosition>,
    /// The messages that were asked for.
    history: Option<HistoryExcerpt>,
    /// A plugin's answer to a request, as JSON text.
    data: Option<Box<str>>,
}

/// Handles the text frame `text` of `client`, which arrived at `arrived`. Returns the change of the session, if the frame
/// brings one about.
pub(super) async fn frame(
    services: &Services,
    connection: &Arc<Connection>,
    client: &Arc<ClientInfo>,
    text: &str,
    arrived: Instant,
    live: &LiveConfig,
) -> Option<SessionChange> {
    let envelope = match Envelope::parse_as(text, dialect(connection)) {
        Ok(envelope) => envelope,
        Err(error) => {
            services.metrics.messages_by_type.count(OTHER);
            reject(
                services,
                connection,
                error.id.as_deref(),
                error.code,
                &error.message,
            );
            return None;
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
        client,
        actor: Actor {
            trace: span.as_ref(),
            ..Actor::of(services, connection, client)
        },
        id: envelope.id.as_deref(),
        message_id: &message_id,
        seen: seen.as_deref(),
    };
    if envelope.event_type.is_built_in() {
        Box::pin(context.built_in(&envelope)).await
    } else if envelope.once {
        Box::pin(context.custom_once(&envelope, arrived, live)).await;
        None
    } else {
        let result = context.custom(&envelope, arrived, live).await;
        context.answer(result.map(Answer::from));
        None
    }
}

impl FrameContext<'_> {
    /// Handles a message of a type that is not built in.
    async fn custom(
        &self,
        envelope: &Envelope<'_>,
        arrived: Instant,
        live: &LiveConfig,
    ) -> Result<Conclusion, NotSent> {
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
            (None, Some(room)) if live.rooms.rule(room).send == SendRule::Backend => {
                return Err(NotSent::refused(
                    ErrorCode::ForbiddenRoom,
                    "only backends send to this room",
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
        let outcome = pipeline::run(&plugins, Some(self.client), message).await;
        drop(plugins);
        // A client of websocket-app sends no `id`, so its receivers get no unknown field.
        let message_id = self.id.map(|_| self.message_id);
        let result = self.actor.conclude(outcome, message_id).await;
        services.metrics.delivery_latency.record(arrived.elapsed());
        result
    }

    /// Handles a message of a built-in type, and answers it.
    async fn built_in(&self, envelope: &Envelope<'_>) -> Option<SessionChange> {
        match &*envelope.event_type {
            "join" => self.join_and_catch_up(envelope).await,
            "leave" => {
                self.leave(envelope).await;
                None
            }
            "token" => self.replace_token(envelope.payload).await,
            _ => {
                self.answer(self.handle(envelope).await);
                None
            }
        }
    }

    /// Checks a token that should replace that of the connection, and answers.
    async fn replace_token(&self, payload: &str) -> Option<SessionChange> {
        let services = self.actor.services;
        let checked = token::check(services, self.connection, payload).await;
        let mut accepted = None;
        self.answer(checked.map(|token| {
            accepted = Some(SessionChange::Token(token));
            AckStatus::Handled.into()
        }));
        accepted
    }

    /// Handles a message of a built-in type other than `join`, `leave` and `token`.
    async fn handle(&self, envelope: &Envelope<'_>) -> Result<Answer, NotSent> {
        let services = self.actor.services;
        match &*envelope.event_type {
            "heartbeat" => Ok(AckStatus::Handled.into()),
            "latency_report" => match serde_json::from_str::<f64>(envelope.payload) {
                Ok(ms) if (0.0..=LATENCY_MS_MAX).contains(&ms) => {
                    let metrics = &services.metrics;
                    metrics.reported_latency.record(duration_of_ms(ms));
                    Ok(AckStatus::Handled.into())
                }
                _ => Err(NotSent::refused(
                    ErrorCode::InvalidPayload,
                    "the payload must be a number of milliseconds from 0 to 60000",
                )),
            },
            "history" => {
                let room = room_frames::named_room(envelope, "`room` names the room to read")?;
                self.read_back(room, envelope.payload).await
            }
            _ => Err(NotSent::refused(
                ErrorCode::ReservedType,
                "only the server sends this type",
            )),
        }
    }

    /// Sends the client its `ack`, if it wants one, or the error.
    fn answer(&self, result: Result<Answer, NotSent>) {
        self.send_answer(self.encode(&result));
    }

    /// Records the result, and makes the `ack`, if the client wants one, or the error.
    fn encode(&self, result: &Result<Answer, NotSent>) -> Option<Frame> {
        self.actor
            .record(result.as_ref().map(|answer| answer.status));
        match (result, self.id) {
            (Ok(answer), Some(id)) => Some(self.ack(id, answer)),
            (Ok(_), None) => None,
            (Err(error), id) => Some(error.encode(id)),
        }
    }

    fn send_answer(&self, answer: Option<Frame>) {
        if let Some(frame) = answer {
            let table = self.actor.services.router.table();
            table.push(self.connection, frame);
        }
    }

    fn ack(&self, id: &str, answer: &Answer) -> Frame {
        let first_id = self.actor.once.and_then(OnceMessage::first_id);
        let message_id = first_id.unwrap_or(self.message_id);
        let ack = AckPayload {
            room: answer.room.as_ref(),
            history: answer.history.as_ref(),
            data: answer.data.as_deref(),
            ..AckPayload::new(id, message_id, answer.status)
        };
        let Some(seen) = self.seen else {
            return ack.encode();
        };
        let versions = seen.versions();
        let seen_by: Vec<_> = versions.iter().map(|version| seen_by(version)).collect();
        AckPayload {
            plugins: Some(&seen_by),
            ..ack
        }
        .encode()
    }
}

impl From<AckStatus> for Answer {
    fn from(status: AckStatus) -> Self {
        Self {
            status,
            room: None,
            history: None,
            data: None,
        }
    }
}

impl From<Conclusion> for Answer {
    fn from(conclusion: Conclusion) -> Self {
        Self {
            data: conclusion.data,
            ..Self::from(conclusion.status)
        }
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
        "too many messages; send more slowly",
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
