//! Takes the texts that come in on the channels of this server, and gives each to the part that handles it.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use redis::Value;
use signalbox_protocol::{
    Frame, Position,
    published::{self, Published},
};
use signalbox_telemetry::{
    metrics::{DropReason, Metrics, events::MessageDropped},
    trace::{Span, Tracer},
};
use tracing::warn;

use super::{
    control::{self, Control},
    deduplicator::{self, Arrival, Deduplicator},
    echo_filter::EchoFilter,
    fences::{self, FenceEvent, Fences},
    health::{Health, Publishing},
    held::HeldMessages,
    kept::{self, KeptText},
    keys::{KeyNames, RouteName, ServerId},
    lookup::Lookup,
    marks::{self, Mark},
    notices,
    post::TEXT_BYTES_MAX,
    posted::{self, PostedFrames},
    revocations::ClusterRevocations,
    routes::RouteWriter,
    traced,
    waiting::Parcel,
};
use crate::{HistoryName, LocalNode, Target};

/// Malformed messages are logged once in this time, with their number.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// The beginning of a probe.
const PROBE: &str = r#"{"type":"signalbox.probe","#;

/// The parts that handle incoming messages.
pub(super) struct InboxParts {
    /// Delivers messages.
    pub(super) node: Arc<dyn LocalNode>,
    /// Rewrites routes that are wrong.
    pub(super) routes: Arc<RouteWriter>,
    /// Requests of other nodes, and replies.
    pub(super) control: Arc<Control>,
    /// Frames that other nodes post to connections here, and replies.
    pub(super) posts: Arc<PostedFrames>,
    /// Texts about the order of messages.
    pub(super) fences: Arc<Fences>,
    /// Messages for users who are no longer here.
    pub(super) held: Arc<HeldMessages>,
    /// Cached routes, to be invalidated.
    pub(super) lookup: Arc<Lookup>,
    /// Revocations that other nodes announce.
    pub(super) revocations: Arc<ClusterRevocations>,
    /// This server's own probes.
    pub(super) health: Arc<Health>,
    /// Broadcasts that come back.
    pub(super) own_broadcasts: Arc<EchoFilter>,
}

/// A message for clients, and the receiver that it names.
struct Addressed {
    frame: Frame,
    user: Option<String>,
    room: Option<String>,
}

/// Delivers the messages that are published for this server to its connections.
pub(super) struct Inbox {
    own_id: ServerId,
    own_channel: String,
    broadcast_channel: String,
    routes_channel: String,
    revoked_channel: String,
    to: InboxParts,
    deduplicator: Deduplicator,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    malformed: AtomicU64,
    complained: Mutex<Option<Instant>>,
}

impl Inbox {
    pub(super) fn new(
        keys: &KeyNames,
        to: InboxParts,
        metrics: Arc<Metrics>,
        tracer: Tracer,
    ) -> Self {
        Self {
            own_id: keys.own_id().clone(),
            own_channel: keys.server_channel(keys.own_id()),
            broadcast_channel: keys.broadcast_channel(),
            routes_channel: keys.routes_channel(),
            revoked_channel: keys.revoked_channel(),
            to,
            deduplicator: Deduplicator::default(),
            metrics,
            tracer,
            malformed: AtomicU64::new(0),
            complained: Mutex::new(None),
        }
    }

    /// A new subscription serves. Earlier messages may have been lost.
    pub(super) fn subscribed(&self) {
        self.to.node.check_histories();
        self.to.revocations.compare_soon();
        self.to.node.check_members();
    }

    /// The text of the probe that [`Inbox::receive`] recognises.
    pub(super) fn probe(sent: u64) -> String {
        format!(r#"{PROBE}"payload":{sent}}}"#)
    }

    /// Handles a push from Redis: the name of a channel and a text, which was published in this way.
    pub(super) fn receive(&self, pushed: Vec<Value>, publishing: Publishing) {
        let mut parts = pushed.into_iter();
        let (Some(channel), Some(Value::BulkString(payload))) = (parts.next(), parts.next()) else {
            return;
        };
        let is =
            |name: &str| matches!(&channel, Value::BulkString(bytes) if bytes == name.as_bytes());
        let text = match String::from_utf8(payload) {
            Ok(text) if text.len() <= TEXT_BYTES_MAX => text,
            _ => return self.warn_malformed("it is not UTF-8, or larger than 16 MiB"),
        };
        if is(&self.own_channel) {
            if text.starts_with(PROBE) {
                if let Some(away) = self.to.health.probe_came_back(publishing) {
                    self.metrics.redis.probe.record(away);
                }
                return;
            }
            self.to.health.message_came_in(publishing);
            self.take_own(text);
        } else if is(&self.routes_channel) {
            let to = &self.to;
            notices::handle(&text, &to.lookup, &to.held, &*to.node)
                .unwrap_or_else(|error| self.warn_malformed(&error));
        } else if is(&self.revoked_channel) {
            let taken = self.to.revocations.announced(&text);
            taken.unwrap_or_else(|error| self.warn_malformed(&error));
        } else if is(&self.broadcast_channel) && !self.to.own_broadcasts.take(&text) {
            self.broadcast(text);
        }
    }

    /// Handles a text on this server's own channel that is no probe.
    fn take_own(&self, text: String) {
        let (parent, marked) = match traced::read(&text) {
            Some(traced) => (traced.parent, traced.message),
            None => (None, text.as_str()),
        };
        if let Some((mark, message)) = marks::read(marked) {
            let span = parent.and_then(|parent| self.tracer.continue_from(parent, "deliver"));
            return match kept::read(message) {
                Some(kept) => self.deliver_kept(kept, Some(mark), span),
                None => self.deliver(message.to_owned(), Some(mark), span),
            };
        }
        if let Some(kept) = kept::read(marked) {
            let span = parent.and_then(|parent| self.tracer.continue_from(parent, "deliver"));
            return self.deliver_kept(kept, None, span);
        }
        if marked.starts_with(fences::START) {
            return self.take_fence(marked);
        }
        if marked.starts_with(posted::START) {
            let taken = self.to.posts.handle(marked);
            return taken.unwrap_or_else(|error| self.warn_malformed(&error));
        }
        if marked.starts_with(control::START) {
            let taken = self.to.control.handle(marked);
            return taken.unwrap_or_else(|error| self.warn_malformed(&error));
        }
        let span = parent.and_then(|parent| self.tracer.continue_from(parent, "deliver"));
        self.deliver(marked.to_owned(), None, span);
    }

    /// Takes a text about messages that wait or were forwarded.
    fn take_fence(&self, text: &str) {
        let held = &self.to.held;
        match self.to.fences.parse(text) {
            Ok(Some(FenceEvent::Question { id, from, user })) => held.answer(id, from, user),
            Ok(Some(FenceEvent::HolderQuestion { id, from, user })) => {
                held.answer_at_once(id, from, user);
            }
            Ok(Some(FenceEvent::Arrival { user, number })) => held.arrived(&user, number),
            Ok(None) => {}
            Err(error) => self.warn_malformed(&error),
        }
    }

    /// Delivers a message that every server gets. Like `websocket-app`, delivers a message with a receiver to that receiver only.
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

    /// Delivers a message to the receiver that it names. If it is traced, `span` ends with the delivery.
    fn deliver(&self, text: String, mark: Option<Mark<'_>>, span: Option<Span>) {
        let hops = mark.map_or(0, |mark| mark.hops);
        let trail = mark.map(|mark| mark.trail()).unwrap_or_default();
        // Of the text as it came: a rewritten one may differ from server to server. The mark of a publishing server lists the
        // servers that have the message, so it cannot be a duplicate until it is forwarded.
        let identity = match mark {
            Some(mark) if hops > 0 => Some(mark.identity),
            Some(_) => None,
            None => Some(deduplicator::identity(&text)),
        };
        let Some(Addressed { frame, user, room }) = self.check(text) else {
            return;
        };
        let connections = match (&user, &room) {
            (Some(user), _) => {
                let way = if hops == 0 {
                    Arrival::Published
                } else if trail.number_of(&self.own_id).is_some() {
                    Arrival::Returned
                } else {
                    Arrival::Forwarded
                };
                if identity.is_some_and(|identity| self.deduplicator.is_double(identity, way)) {
                    return self.to.held.ended(user, &trail);
                }
                let parcel = Parcel {
                    identity,
                    frame,
                    hops,
                    trail,
                    at: None,
                };
                self.deliver_to_user(user, parcel)
            }
            (None, Some(room)) => {
                let members = self.to.node.deliver(Target::Room(room), &frame);
                self.check_room(room, members);
                members
            }
            (None, None) => return self.warn_malformed("it names neither `receiverID` nor `room`"),
        };
        note_connections(span, connections);
    }

    /// Delivers a message of the history of the room or user that it names. If it is traced, `span` ends with the delivery.
    fn deliver_kept(&self, kept: KeptText<'_>, mark: Option<Mark<'_>>, span: Option<Span>) {
        let Some(at) = kept.at else {
            return self.warn_malformed("its position in a history is malformed");
        };
        let Some(Addressed { frame, user, room }) = self.check(kept.message.to_owned()) else {
            return;
        };
        let connections = match (user, room) {
            (Some(user), None) => {
                let parcel = Parcel {
                    frame,
                    hops: mark.map_or(0, |mark| mark.hops),
                    identity: mark.map(|mark| mark.identity),
                    trail: mark.map(|mark| mark.trail()).unwrap_or_default(),
                    at: Some(at.clone()),
                };
                self.deliver_kept_to_user(&user, &at, parcel)
            }
            (None, Some(room)) => {
                let frame = frame.with_offset(at.offset);
                let name = HistoryName::Room(&room);
                let members = self.to.node.deliver_kept(name, &at, &frame);
                self.check_room(&room, members);
                members
            }
            _ => {
                let reason =
                    "it has a position in a history, and names no `receiverID` or `room`, or both";
                return self.warn_malformed(reason);
            }
        };
        note_connections(span, connections);
    }

    /// Like [`Inbox::deliver_to_user`], for a message of the history of `user`. It need not wait for earlier ones: the node
    /// brings them into order.
    fn deliver_kept_to_user(&self, user: &str, at: &Position, parcel: Parcel) -> usize {
        let (held, node) = (&self.to.held, &self.to.node);
        let frame = parcel.frame.with_offset(at.offset);
        let connections = node.deliver_kept(HistoryName::User(user), at, &frame);
        if connections > 0 {
            held.ended(user, &parcel.trail);
            return connections;
        }
        if !node.holds_user(user) {
            self.to.routes.invalidate(RouteName::User(user));
        }
        held.push(user, parcel);
        0
    }

    /// Returns the number of connections here that took it at once.
    fn deliver_to_user(&self, user: &str, parcel: Parcel) -> usize {
        let held = &self.to.held;
        if !held.is_waiting(user) {
            let node = &self.to.node;
            let connections = node.deliver(Target::User(user), &parcel.frame);
            if connections > 0 {
                held.ended(user, &parcel.trail);
                return connections;
            }
            // The sender read the route before the last connection closed, or the route is wrong and must be removed.
            if !node.holds_user(user) {
                self.to.routes.invalidate(RouteName::User(user));
            }
        }
        held.push(user, parcel);
        0
    }

    /// Counts a message that `members` members took as dropped, and has the route removed, if no member of `room` is here. It
    /// is not forwarded: a user who left the room does not get it.
    fn check_room(&self, room: &str, members: usize) {
        if members == 0 && !self.to.node.holds_room(room) {
            MessageDropped {
                metrics: &self.metrics,
                reason: DropReason::Offline,
            }
            .emit();
            self.to.routes.invalidate(RouteName::Room(room));
        }
    }

    /// The message as clients get it; `None` if it is malformed, which is counted.
    fn check(&self, text: String) -> Option<Addressed> {
        let normalised = published::normalise(&text, SystemTime::now());
        let Published {
            frame,
            receiver,
            room,
        } = normalised
            .inspect_err(|error| self.warn_malformed(&error.to_string()))
            .ok()?;
        let user = receiver.map(|user| user.into_cow().into_owned());
        let room = room.map(|room| room.into_cow().into_owned());
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

    fn warn_malformed(&self, reason: &str) {
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
                reason, "malformed messages were published to this server and are ignored"
            );
        }
    }
}

/// Notes the number of connections in the span of a delivery, which ends.
fn note_connections(span: Option<Span>, connections: usize) {
    if let Some(span) = span {
        span.set("signalbox.connections", connections as i64);
    }
}
