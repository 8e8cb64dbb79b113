//! Publishes messages: to each server that holds the receiver, or to all servers.

use std::{borrow::Cow, time::Duration};

use futures_util::future::join_all;
use signalbox_protocol::{Frame, Position};
use signalbox_redis_client::{Topology, Unavailable};
use signalbox_telemetry::trace::{Span, SpanKind, Trace};
use tokio::time::Instant;

use super::{
    RedisBroker,
    holders::Holders,
    kept,
    keys::{Ability, RouteName, ServerId},
    marks, traced,
};
use crate::BrokerError;

/// After a new link to Redis the other nodes write their routes again. An empty route is not believed before that.
const BELIEVED_AFTER: Duration = Duration::from_secs(3);

/// A message for the servers that hold a user or a room.
#[derive(Clone, Copy)]
pub(super) struct PublishedMessage<'a> {
    pub(super) name: RouteName<'a>,
    pub(super) frame: &'a Frame,
    pub(super) line: LineBefore<'a>,
    pub(super) trace: Trace<'a>,
}

/// The line that comes before a message, unless the server does not understand it.
#[derive(Clone, Copy)]
pub(super) enum LineBefore<'a> {
    None,
    /// A mark with the servers that have the message. `here`: this one has it too.
    Mark {
        here: bool,
    },
    /// The message's position in a history.
    Position(&'a Position),
}

/// A line, or no text, and the ability that it takes to understand it.
struct Line {
    text: String,
    ability: Ability,
}

/// The result of publishing one message.
#[derive(Default)]
struct PublishResult {
    /// Servers that it was published to.
    reached: usize,
    /// Servers that are alive and do not listen.
    unheard: usize,
    failure: Option<Unavailable>,
}

impl RedisBroker {
    /// Publishes to every other server that holds the receiver, and returns their number.
    pub(super) async fn publish_to(
        &self,
        message: PublishedMessage<'_>,
    ) -> Result<usize, BrokerError> {
        // The cached route may be outdated: if nobody listens there, Redis is asked again.
        let mut sent = self.publish_by_lookup(message).await?;
        if sent.is_unheard() && self.commands.topology()? != Topology::Cluster {
            sent = self.publish_by_lookup(message).await?;
        }
        match sent.failure {
            Some(error) if sent.reached == 0 => Err(error.into()),
            None if sent.is_unheard() => Err(BrokerError::Unavailable(
                "the receiver's node does not listen now".to_owned(),
            )),
            None if sent.reached == 0 && self.commands.is_replaced_since(BELIEVED_AFTER) => {
                Err(BrokerError::Unavailable(
                    "Redis was unavailable, and routes are being restored".to_owned(),
                ))
            }
            _ => Ok(sent.reached),
        }
    }

    async fn publish_by_lookup(
        &self,
        message: PublishedMessage<'_>,
    ) -> Result<PublishResult, Unavailable> {
        let name = message.name;
        let came = Instant::now();
        // Held until everything is published, so that nothing on a later route overtakes it.
        let route = self.lookup.open(name).await?;
        let own = self.keys.own_id();
        let here = matches!(message.line, LineBefore::Mark { here: true });
        let mut others = route.receivers(own, here);
        if let RouteName::User(user) = name
            && here
            && !self.node.holds_user(user)
        {
            // The user took it here, and has moved there while the route was read.
            others.retain(|server| !route.has_new(server, came));
        }
        if others.is_empty() {
            return Ok(PublishResult::default());
        }
        if matches!(message.line, LineBefore::Mark { here: false }) && route.leads_to(own) {
            // The user has connected here since: the next local delivery must not overtake this message.
            self.lookup.changed(name);
        }
        let line = self.line(message, &others);
        let publish = async |server| {
            let heard = self.publish_on(server, message, &line).await;
            (server, heard)
        };
        let results = join_all(others.into_iter().map(publish)).await;
        let mut sent = PublishResult::default();
        for (server, result) in results {
            match result {
                Ok(true) => sent.reached += 1,
                Ok(false) => {
                    sent.unheard += 1;
                    self.metrics.redis.unheard.increment();
                    self.lookup.forget(name, server);
                }
                Err(error) => sent.failure = Some(error),
            }
        }
        Ok(sent)
    }

    /// The line before a message that goes to `others`.
    fn line(&self, message: PublishedMessage<'_>, others: &[&ServerId]) -> Line {
        let (text, ability) = match (message.line, message.name) {
            (LineBefore::None, _) => (String::new(), Ability::Messages),
            (LineBefore::Mark { here }, _) => (self.mark(others, here), Ability::Forwards),
            (LineBefore::Position(at), RouteName::Room(_)) => (kept::line(at), Ability::Histories),
            (LineBefore::Position(at), RouteName::User(_)) => {
                (kept::line(at), Ability::UserHistories)
            }
        };
        Line { text, ability }
    }

    /// The mark that lists the servers that get the message.
    fn mark(&self, others: &[&ServerId], here: bool) -> String {
        let mut servers: Vec<ServerId> = Vec::new();
        if others.len() > 1 {
            servers.extend(others.iter().map(|server| (*server).clone()));
        }
        if here {
            servers.push(self.keys.own_id().clone());
        }
        let trail = marks::Trail {
            servers,
            ..marks::Trail::default()
        };
        marks::line(0, 0, &trail)
    }

    /// Returns whether anybody listens; `true` if that is unknown.
    async fn publish_on(
        &self,
        server: &ServerId,
        message: PublishedMessage<'_>,
        line: &Line,
    ) -> Result<bool, Unavailable> {
        let frame = message.frame.as_str();
        let span = message
            .trace
            .map(|message| publish_span(message, Some(server)));
        let traced = match &span {
            Some(span) if self.traces && self.holders.can(server, Ability::Traces) => {
                traced::line(span)
            }
            _ => String::new(),
        };
        let text = match (traced.as_str(), line.for_server(server, &self.holders)) {
            ("", "") => Cow::Borrowed(frame),
            (traced, line) => Cow::Owned([traced, line, frame].concat()),
        };
        self.outgoing.post(server, &text, span.as_ref()).await
    }

    /// Without a trace: other software on the common channel would not understand it.
    pub(super) async fn broadcast(
        &self,
        frame: &Frame,
        trace: Trace<'_>,
    ) -> Result<usize, BrokerError> {
        let span = trace.map(|message| publish_span(message, None));
        self.own_broadcasts.note(frame.as_str());
        let sent = self.outgoing.broadcast(frame.as_str(), span.as_ref()).await;
        // This node listens too.
        Ok(sent?.saturating_sub(1))
    }
}

impl Line {
    /// The line for `server`; empty if it would not understand it.
    fn for_server(&self, server: &ServerId, holders: &Holders) -> &str {
        if holders.can(server, self.ability) {
            &self.text
        } else {
            ""
        }
    }
}

impl PublishResult {
    fn is_unheard(&self) -> bool {
        self.reached == 0 && self.unheard > 0
    }
}

/// The span of one publish, to one server or to all.
fn publish_span(message: &Span, server: Option<&ServerId>) -> Span {
    let span = message.child("publish", SpanKind::Producer);
    span.set("messaging.system", "redis");
    if let Some(server) = server {
        span.set("messaging.destination.name", server.to_string());
    }
    span
}
