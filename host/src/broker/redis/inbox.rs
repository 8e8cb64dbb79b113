//! What comes in on the channels of this server: whose it is, and to whom it goes.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use redis::Value;
use tracing::warn;

use super::{
    control::{self, Control},
    health::Health,
    keys::{Keys, Name},
    own_broadcasts::OwnBroadcasts,
    routes::Routes,
    traced,
};
use crate::{
    broker::{LocalNode, Target},
    metrics::{DropReason, Metrics, events::MessageDropped},
    protocol::{
        Frame,
        published::{self, Published},
    },
    trace::{Span, Tracer},
};

/// Largest message that is taken: as large as the largest frame that can be configured.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Malformed messages are told of once in this time, with how many there were.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How the text of a probe starts.
const PROBE: &str = r#"{"type":"signalbox.probe","#;

/// Whom what comes in may be for.
pub(super) struct Receivers {
    /// Messages.
    pub(super) node: Arc<dyn LocalNode>,
    /// Doubts about who is here.
    pub(super) routes: Arc<Routes>,
    /// What other nodes ask and answer.
    pub(super) control: Arc<Control>,
    /// This server's own probes.
    pub(super) health: Arc<Health>,
    /// Broadcasts that come back.
    pub(super) own_broadcasts: Arc<OwnBroadcasts>,
}

/// A message for clients, and whom it names.
struct Addressed {
    frame: Frame,
    user: Option<String>,
    room: Option<String>,
}

/// Takes what is published for this server and hands it out to its connections.
pub(super) struct Inbox {
    own_channel: String,
    broadcast_channel: String,
    to: Receivers,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    malformed: AtomicU64,
    complained: Mutex<Option<Instant>>,
}

impl Inbox {
    pub(super) fn new(keys: &Keys, to: Receivers, metrics: Arc<Metrics>, tracer: Tracer) -> Self {
        Self {
            own_channel: keys.server_channel(keys.own_id()),
            broadcast_channel: keys.broadcast_channel(),
            to,
            metrics,
            tracer,
            malformed: AtomicU64::new(0),
            complained: Mutex::new(None),
        }
    }

    /// The text of the probe that [`Inbox::take`] recognises.
    pub(super) fn probe(sent: u64) -> String {
        format!(r#"{PROBE}"payload":{sent}}}"#)
    }

    /// Takes what was pushed: a channel's name and a text.
    pub(super) fn take(&self, pushed: Vec<Value>) {
        let mut parts = pushed.into_iter();
        let (Some(channel), Some(Value::BulkString(payload))) = (parts.next(), parts.next()) else {
            return;
        };
        let is =
            |name: &str| matches!(&channel, Value::BulkString(bytes) if bytes == name.as_bytes());
        let text = match String::from_utf8(payload) {
            Ok(text) if text.len() <= FRAME_BYTES_MAX => text,
            _ => return self.complain("it is no UTF-8, or over 16 MiB"),
        };
        if is(&self.own_channel) {
            if text.starts_with(PROBE) {
                if let Some(away) = self.to.health.heard() {
                    self.metrics.redis.probe.record(away);
                }
                return;
            }
            if let Some(traced) = traced::read(&text) {
                let span = traced
                    .parent
                    .and_then(|parent| self.tracer.go_on(parent, "deliver"));
                return self.deliver(traced.message.to_owned(), span);
            }
            if text.starts_with(control::START) {
                return self
                    .to
                    .control
                    .take(&text)
                    .unwrap_or_else(|error| self.complain(&error));
            }
            self.deliver(text, None);
        } else if is(&self.broadcast_channel) && !self.to.own_broadcasts.take(&text) {
            self.broadcast(text);
        }
    }

    /// Every server gets it. Like `websocket-app`, hands a message that names somebody to nobody else.
    fn broadcast(&self, text: String) {
        let Some(Addressed { frame, user, room }) = self.check(text) else {
            return;
        };
        let target = match (&user, &room) {
            (Some(user), _) => Target::User(user),
            (None, Some(room)) => Target::Room(room),
            (None, None) => Target::Everyone,
        };
        self.to.node.deliver(target, &frame);
    }

    /// Hands a message to whom it names. If it is traced, `span` ends with it.
    fn deliver(&self, text: String, span: Option<Span>) {
        let Some(Addressed { frame, user, room }) = self.check(text) else {
            return;
        };
        let (target, name) = match (&user, &room) {
            (Some(user), _) => (Target::User(user), Name::User(user)),
            (None, Some(room)) => (Target::Room(room), Name::Room(room)),
            (None, None) => return self.complain("it names neither `receiverID` nor `room`"),
        };
        let connections = self.to.node.deliver(target, &frame);
        if let Some(span) = &span {
            span.set("signalbox.connections", connections as i64);
        }
        if connections == 0 && !self.holds(name) {
            // The sender asked before the last connection went, or the route is a wrong one that must go.
            MessageDropped {
                metrics: &self.metrics,
                reason: DropReason::Offline,
            }
            .emit();
            self.to.routes.doubt(name);
        }
    }

    /// The message as clients get it; none if it is malformed, which is counted.
    fn check(&self, text: String) -> Option<Addressed> {
        let normalised = published::normalise(&text, SystemTime::now());
        let Published {
            frame,
            receiver,
            room,
        } = normalised
            .inspect_err(|error| self.complain(&error.to_string()))
            .ok()?;
        let (user, room) = (receiver.map(Cow::into_owned), room.map(Cow::into_owned));
        let rewritten = match frame {
            Cow::Borrowed(_) => None,
            Cow::Owned(rewritten) => Some(rewritten),
        };
        Some(Addressed {
            frame: rewritten.unwrap_or(text).into(),
            user,
            room,
        })
    }

    fn holds(&self, name: Name<'_>) -> bool {
        match name {
            Name::User(user) => self.to.node.holds_user(user),
            Name::Room(room) => self.to.node.holds_room(room),
        }
    }

    fn complain(&self, reason: &str) {
        self.metrics.redis.malformed.increment();
        let count = self.malformed.fetch_add(1, Ordering::Relaxed) + 1;
        let mut complained = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
            *complained = Some(Instant::now());
            drop(complained);
            self.malformed.store(0, Ordering::Relaxed);
            warn!(
                count,
                reason, "malformed messages were published to this server and are passed over"
            );
        }
    }
}
