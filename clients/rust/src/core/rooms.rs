//! Rooms: wishes of the application, memberships, and positions (section 6 of SPEC.md).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::calls::Reply;
use super::{Alarm, Backoff, Core, Effect, Timer, TokenOf};
use crate::error::{Error, TokenError, codes};
use crate::events::{Event, Presence};
use crate::frames::{
    Answered, JoinPayload, OutgoingFrame, Place, Position, PresencePayload, RoomPayload,
};
use crate::options::{JoinOptions, RoomToken};

/// The most joins without an answer.
const JOINS_MAX: usize = 50;
/// Joins are retried after random times up to these.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(20);

type Joined = Result<Option<bool>, Error>;

/// A wish to be in a room, and what became of it.
struct Wish {
    /// Its place among the wishes.
    number: u64,
    options: JoinOptions,
    /// The token of the room, if there is one now.
    token: Option<String>,
    /// Whether the token was never accepted.
    fresh: bool,
    backoff: Backoff,
    position: Option<Position>,
    presence: Presence,
    joined: bool,
    /// Whether the client was a member before.
    confirmed: bool,
    /// The ID of the join that waits for its answer, and the position that it named.
    call: Option<(String, Option<Position>)>,
    /// Whether to join once more after the answer.
    rejoin: bool,
    /// Whether the join waits for its turn.
    queued: bool,
    retry: Option<Alarm>,
    /// The limit of the token callback, if it runs.
    fetching: Option<Alarm>,
    waiters: Vec<oneshot::Sender<Joined>>,
}

impl Wish {
    fn has_callback(&self) -> bool {
        matches!(self.options.token, Some(RoomToken::Callback(_)))
    }

    fn resolve(&mut self, result: &Joined) {
        for waiter in self.waiters.drain(..) {
            // The application may no longer wait.
            let _ = waiter.send(result.clone());
        }
    }

    fn set_token(&mut self) {
        self.token = match &self.options.token {
            Some(RoomToken::Fixed(token)) => Some(token.clone()),
            Some(RoomToken::Callback(_)) | None => None,
        };
        self.fresh = true;
    }

    fn frame(&self, room: &str) -> OutgoingFrame {
        let mut frame = OutgoingFrame::about("join", Some(room));
        let payload = JoinPayload {
            since: self.position.as_ref(),
            last: self.options.last.filter(|_| self.position.is_none()),
            presence: self.options.presence,
            token: self.token.as_deref(),
        };
        // Strings and numbers are always JSON.
        let payload = serde_json::to_value(payload).unwrap_or_default();
        if payload.as_object().is_some_and(|fields| !fields.is_empty()) {
            frame.payload = payload;
        } else {
            frame.payload = Value::Null;
        }
        frame
    }
}

/// All wishes of a client.
#[derive(Default)]
pub(super) struct Rooms {
    count: u64,
    wishes: HashMap<String, Wish>,
    order: BTreeMap<u64, String>,
    to_join: VecDeque<String>,
    unanswered: usize,
    /// The rooms that messages wait for after a reconnect.
    unsettled: HashSet<String>,
}

impl Rooms {
    /// The rooms that the client is in now, sorted.
    pub(super) fn joined(&self) -> Vec<String> {
        let joined = self.wishes.iter().filter(|(_, wish)| wish.joined);
        let mut names: Vec<_> = joined.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn presence(&self, room: &str) -> Presence {
        let wish = self.wishes.get(room);
        wish.map(|wish| wish.presence.clone()).unwrap_or_default()
    }

    pub(super) fn is_fetching(&self, room: &str) -> bool {
        self.wishes
            .get(room)
            .is_some_and(|wish| wish.fetching.is_some())
    }

    fn names(&self) -> Vec<String> {
        self.order.values().cloned().collect()
    }

    fn add(&mut self, name: &str, options: JoinOptions) {
        self.count += 1;
        self.order.insert(self.count, name.to_owned());
        let mut wish = Wish {
            number: self.count,
            options,
            token: None,
            fresh: true,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            position: None,
            presence: Presence::default(),
            joined: false,
            confirmed: false,
            call: None,
            rejoin: false,
            queued: false,
            retry: None,
            fetching: None,
            waiters: Vec::new(),
        };
        wish.set_token();
        self.wishes.insert(name.to_owned(), wish);
    }
}

impl Core {
    pub(super) fn join(
        &mut self,
        room: String,
        options: JoinOptions,
        reply: oneshot::Sender<Joined>,
    ) {
        if self.is_closed() {
            let _ = reply.send(Err(Error::closed()));
            return;
        }
        match self.rooms.wishes.get_mut(&room) {
            None => self.rooms.add(&room, options),
            Some(wish) if wish.options.same(&options) => {
                // Functions cannot be compared: the new one counts.
                wish.options = options;
                if wish.joined && wish.call.is_none() {
                    let _ = reply.send(Ok(None));
                    return;
                }
            }
            Some(wish) => {
                let same_token = wish.options.same_token(&options);
                wish.options = options;
                wish.rejoin = wish.call.is_some();
                if !same_token {
                    wish.set_token();
                    self.stop_fetching(&room);
                }
            }
        }
        if let Some(wish) = self.rooms.wishes.get_mut(&room) {
            wish.waiters.push(reply);
        }
        self.enqueue(&room);
    }

    pub(super) fn leave(&mut self, room: &str, reply: oneshot::Sender<Result<(), Error>>) {
        let wish = self.rooms.wishes.get(room);
        let known = wish.is_some_and(|wish| wish.joined || wish.call.is_some());
        let reason = "the application left the room";
        self.end_wish(room, &Error::new(codes::CLOSED, reason));
        if known && self.is_up() {
            let frame = OutgoingFrame::about("leave", Some(room));
            self.control(frame, Reply::Leave(reply));
        } else {
            let _ = reply.send(Ok(()));
        }
    }

    pub(super) fn left(&self, reply: oneshot::Sender<Result<(), Error>>, answer: Answered) {
        let gone = |error: &Error| [codes::CONNECTION_LOST, codes::CLOSED].contains(&&*error.code);
        let _ = reply.send(match answer {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        });
    }

    /// There is a connection: join all rooms again.
    pub(super) fn join_all(&mut self) {
        let rooms = self.rooms.names();
        self.rooms.unsettled = rooms.iter().cloned().collect();
        if rooms.is_empty() {
            self.flow();
        }
        for room in rooms {
            self.enqueue(&room);
        }
    }

    /// The connection is gone, and with it all memberships.
    pub(super) fn rooms_lost(&mut self) {
        self.rooms.to_join.clear();
        self.rooms.unanswered = 0;
        self.rooms.unsettled.clear();
        for room in self.rooms.names() {
            self.stop_joining(&room);
        }
    }

    /// Ends everything that would lead to another join.
    fn stop_joining(&mut self, room: &str) {
        self.stop_fetching(room);
        if let Some(wish) = self.rooms.wishes.get_mut(room) {
            wish.joined = false;
            wish.queued = false;
            wish.rejoin = false;
            wish.call = None;
            self.timers.cancel(&mut wish.retry);
        }
    }

    fn stop_fetching(&mut self, room: &str) {
        if let Some(wish) = self.rooms.wishes.get_mut(room)
            && wish.fetching.is_some()
        {
            self.timers.cancel(&mut wish.fetching);
            self.rooms.unanswered = self.rooms.unanswered.saturating_sub(1);
            let of = TokenOf::Room(room.to_owned());
            self.effects.push_back(Effect::CancelFetch(of));
        }
    }

    /// The client is closed: no join resolves any more. Only rooms that were joined stay wishes.
    pub(super) fn fail_joins(&mut self) {
        for room in self.rooms.names() {
            match self.rooms.wishes.get_mut(&room) {
                Some(wish) if wish.confirmed => wish.resolve(&Err(Error::closed())),
                _ => self.end_wish(&room, &Error::closed()),
            }
        }
    }

    /// A `joined` has arrived: a member may have missed messages. Before the answer to a join it says nothing new.
    pub(super) fn on_joined(&mut self, frame: RoomPayload) {
        if let Some(wish) = self.rooms.wishes.get_mut(&frame.room)
            && wish.joined
            && frame.place.recovered == Some(false)
        {
            wish.position = frame.place.start();
            self.tell_recovery(Some(frame.room), false, frame.place.reason);
        }
    }

    /// A `left` has arrived. The one after a `leave` finds no membership.
    pub(super) fn on_left(&mut self, frame: &RoomPayload) {
        let room = &frame.room;
        let Some(wish) = self.rooms.wishes.get_mut(room).filter(|wish| wish.joined) else {
            return;
        };
        wish.joined = false;
        let reason = frame.place.reason.as_deref();
        if reason == Some("expired") && wish.has_callback() {
            wish.token = None;
            self.enqueue(room);
            return;
        }
        if wish.call.is_some() {
            // A join is on its way, and would make the client a member again.
            self.control(OutgoingFrame::about("leave", Some(room)), Reply::Nobody);
        }
        let code = reason.unwrap_or("removed");
        self.give_up(room, Error::new(code, "the server ended the membership"));
    }

    pub(super) fn on_presence(&mut self, frame: PresencePayload) {
        if let Some(wish) = self.rooms.wishes.get_mut(&frame.room) {
            let room = frame.room.clone();
            merge(&mut wish.presence, frame);
            let presence = wish.presence.clone();
            self.outlet.put(Event::Presence { room, presence });
        }
    }

    /// Whether the application gets this message of a room now. A gap leads to another join.
    pub(super) fn accept_in_room(&mut self, room: String, offset: Option<u64>) -> bool {
        let Some(wish) = self.rooms.wishes.get_mut(&room) else {
            return true;
        };
        let (Some(at), Some(offset)) = (&mut wish.position, offset) else {
            return true;
        };
        let expected = at.offset + 1;
        if offset == expected {
            at.offset = offset;
        } else if offset > expected && wish.retry.is_none() {
            self.enqueue(&room);
        }
        offset == expected
    }

    /// Joins the room when it is its turn.
    fn enqueue(&mut self, room: &str) {
        if !self.is_up() {
            return;
        }
        let Some(wish) = self.rooms.wishes.get_mut(room) else {
            return;
        };
        if wish.call.is_some() || wish.fetching.is_some() {
            return;
        }
        self.timers.cancel(&mut wish.retry);
        if !wish.queued {
            wish.queued = true;
            self.rooms.to_join.push_back(room.to_owned());
        }
        self.join_next();
    }

    pub(super) fn join_again(&mut self, room: &str) {
        if let Some(wish) = self.rooms.wishes.get_mut(room) {
            wish.retry = None;
            self.enqueue(room);
        }
    }

    fn join_next(&mut self) {
        while self.rooms.unanswered < JOINS_MAX
            && let Some(room) = self.rooms.to_join.pop_front()
        {
            let Some(wish) = self.rooms.wishes.get_mut(&room) else {
                continue;
            };
            wish.queued = false;
            self.rooms.unanswered += 1;
            match &wish.options.token {
                Some(RoomToken::Callback(callback)) if wish.token.is_none() => {
                    let (callback, name) = (Arc::clone(callback), room.clone());
                    let fetch = Box::pin(async move { callback(name).await });
                    let of = TokenOf::Room(room.clone());
                    self.effects.push_back(Effect::Fetch(of, fetch));
                    let limit = self.now.instant + self.options.token_timeout;
                    wish.fetching = Some(self.timers.set(limit, Timer::RoomToken(room)));
                }
                _ => self.send_join(&room),
            }
        }
    }

    fn send_join(&mut self, room: &str) {
        if let Some(wish) = self.rooms.wishes.get(room) {
            let (frame, since) = (wish.frame(room), wish.position.clone());
            let id = self.control_join(frame, room);
            if let Some(wish) = self.rooms.wishes.get_mut(room) {
                wish.call = Some((id, since));
            }
        }
    }

    pub(super) fn on_room_token(&mut self, room: &str, result: Result<String, TokenError>) {
        let Some(wish) = self.rooms.wishes.get_mut(room) else {
            return;
        };
        if wish.fetching.is_none() {
            return;
        }
        self.timers.cancel(&mut wish.fetching);
        self.rooms.unanswered = self.rooms.unanswered.saturating_sub(1);
        match result {
            Ok(token) => {
                wish.token = Some(token);
                wish.fresh = true;
                self.enqueue(room);
            }
            Err(TokenError::Final(reason)) => {
                self.give_up(room, Error::new(codes::UNAUTHORIZED, reason));
            }
            Err(TokenError::Later(reason)) => {
                self.report_token_failure(&reason);
                self.try_later(room);
            }
        }
        self.join_next();
    }

    pub(super) fn join_answered(&mut self, room: &str, id: &str, answer: Answered) {
        let Some(wish) = self.rooms.wishes.get_mut(room) else {
            return;
        };
        let Some((_, since)) = wish.call.take_if(|(call, _)| call == id) else {
            return;
        };
        self.rooms.unanswered = self.rooms.unanswered.saturating_sub(1);
        match answer {
            Ok(ack) => self.on_member(room, since.is_some(), ack.room.as_ref()),
            Err(error) => self.join_refused(room, error),
        }
        self.settle(room);
        self.join_next();
    }

    fn on_member(&mut self, room: &str, had_since: bool, place: Option<&Place>) {
        let Some(wish) = self.rooms.wishes.get_mut(room) else {
            return;
        };
        wish.joined = true;
        wish.confirmed = true;
        wish.fresh = false;
        wish.backoff.reset();
        let (recovered, reason) = match place {
            None => (Some(false), Some("no_history".to_owned())),
            Some(place) => (place.recovered, place.reason.clone()),
        };
        let recovered = had_since.then_some(recovered == Some(true));
        if recovered != Some(true) {
            // Old messages that the client asked for are still to come.
            wish.position = place.and_then(Place::start);
        }
        let rejoin = std::mem::take(&mut wish.rejoin);
        if !rejoin {
            wish.resolve(&Ok(recovered));
        }
        if let Some(recovered) = recovered {
            let reason = reason.filter(|_| !recovered);
            self.tell_recovery(Some(room.to_owned()), recovered, reason);
        }
        if rejoin {
            self.enqueue(room);
        }
    }

    fn join_refused(&mut self, room: &str, error: Error) {
        let Some(wish) = self.rooms.wishes.get_mut(room) else {
            return;
        };
        if std::mem::take(&mut wish.rejoin) {
            self.enqueue(room);
        } else if error.code == "invalid_token" && wish.has_callback() && !wish.fresh {
            // The token was good for an earlier join, and has expired since.
            wish.token = None;
            self.enqueue(room);
        } else if error.retryable {
            self.try_later(room);
        } else {
            self.give_up(room, error);
        }
    }

    fn try_later(&mut self, room: &str) {
        if !self.is_up() {
            return;
        }
        if let Some(wish) = self.rooms.wishes.get_mut(room) {
            let at = self.now.instant + wish.backoff.next(&mut self.random);
            wish.retry = Some(self.timers.set(at, Timer::Join(room.to_owned())));
        }
    }

    fn give_up(&mut self, room: &str, error: Error) {
        self.end_wish(room, &error);
        let room = room.to_owned();
        self.outlet.put(Event::Left { room, error });
    }

    fn end_wish(&mut self, room: &str, error: &Error) {
        let Some(wish) = self.rooms.wishes.get(room) else {
            return;
        };
        let (number, waits) = (wish.number, wish.call.is_some());
        if waits {
            self.rooms.unanswered = self.rooms.unanswered.saturating_sub(1);
        }
        self.stop_joining(room);
        self.rooms.to_join.retain(|other| other != room);
        self.rooms.order.remove(&number);
        if let Some(mut wish) = self.rooms.wishes.remove(room) {
            wish.resolve(&Err(error.clone()));
        }
        self.settle(room);
        self.join_next();
    }

    /// Messages no longer wait for this room.
    fn settle(&mut self, room: &str) {
        let waits = |wish: &Wish| wish.call.is_some() || wish.fetching.is_some();
        if self.rooms.wishes.get(room).is_some_and(waits) || !self.rooms.unsettled.remove(room) {
            return;
        }
        if self.rooms.unsettled.is_empty() {
            self.flow();
        }
    }
}

/// Applies a `presence` frame to the users of a room.
fn merge(presence: &mut Presence, frame: PresencePayload) {
    presence.total = frame.total;
    if let Some(members) = frame.members {
        let members = members
            .into_iter()
            .map(|member| (member.user.clone(), member));
        presence.members = Some(Arc::new(members.collect()));
        return;
    }
    if frame.joined.is_none() && frame.left.is_none() {
        presence.members = None;
    }
    let Some(members) = &mut presence.members else {
        return;
    };
    let members = Arc::make_mut(members);
    for member in frame.joined.into_iter().flatten() {
        members.insert(member.user.clone(), member);
    }
    for user in frame.left.into_iter().flatten() {
        members.remove(&user);
    }
}
