//! Rooms: commands of the application, memberships, and positions (section 6 of SPEC.md).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::calls::Reply;
use super::memberships::Joined;
use super::{Core, Effect, TokenOf};
use crate::error::{Error, codes};
use crate::events::{Event, Presence};
use crate::frames::{Answered, OutgoingFrame, PresencePayload, RoomPayload};
use crate::options::JoinOptions;

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
        match self.rooms.memberships.get_mut(&room) {
            None => self.rooms.add(&room, options),
            Some(membership) if membership.options.same(&options) => {
                // Functions cannot be compared: the new one counts.
                membership.options = options;
                if membership.joined && membership.call.is_none() {
                    let _ = reply.send(Ok(None));
                    return;
                }
            }
            Some(membership) => {
                let same_token = membership.options.same_token(&options);
                membership.options = options;
                membership.rejoin = membership.call.is_some();
                if !same_token {
                    membership.set_token();
                    self.stop_fetching(&room);
                }
            }
        }
        if let Some(membership) = self.rooms.memberships.get_mut(&room) {
            membership.waiters.push(reply);
        }
        self.enqueue(&room);
    }

    pub(super) fn leave(&mut self, room: &str, reply: oneshot::Sender<Result<(), Error>>) {
        let membership = self.rooms.memberships.get(room);
        let known =
            membership.is_some_and(|membership| membership.joined || membership.call.is_some());
        let reason = "the application left the room";
        self.end_membership(room, &Error::new(codes::CLOSED, reason));
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
        if let Some(membership) = self.rooms.memberships.get_mut(room) {
            membership.joined = false;
            membership.queued = false;
            membership.rejoin = false;
            membership.call = None;
            self.timers.cancel(&mut membership.retry);
        }
    }

    pub(super) fn stop_fetching(&mut self, room: &str) {
        if let Some(membership) = self.rooms.memberships.get_mut(room)
            && membership.fetching.is_some()
        {
            self.timers.cancel(&mut membership.fetching);
            self.rooms.unanswered = self.rooms.unanswered.saturating_sub(1);
            let of = TokenOf::Room(room.to_owned());
            self.effects.push_back(Effect::CancelFetch(of));
        }
    }

    /// The client is closed: no join resolves any more. Only the memberships of joined rooms stay.
    pub(super) fn fail_joins(&mut self) {
        for room in self.rooms.names() {
            match self.rooms.memberships.get_mut(&room) {
                Some(membership) if membership.confirmed => {
                    membership.resolve(&Err(Error::closed()))
                }
                _ => self.end_membership(&room, &Error::closed()),
            }
        }
    }

    /// A `joined` has arrived: a member may have missed messages. Before the answer to a join it says nothing new.
    pub(super) fn on_joined(&mut self, frame: RoomPayload) {
        if let Some(membership) = self.rooms.memberships.get_mut(&frame.room)
            && membership.joined
            && frame.place.recovered == Some(false)
        {
            membership.position = frame.place.start();
            self.tell_recovery(Some(frame.room), false, frame.place.reason);
        }
    }

    /// A `left` has arrived. The one after a `leave` finds no membership.
    pub(super) fn on_left(&mut self, frame: &RoomPayload) {
        let room = &frame.room;
        let Some(membership) = self
            .rooms
            .memberships
            .get_mut(room)
            .filter(|membership| membership.joined)
        else {
            return;
        };
        membership.joined = false;
        let reason = frame.place.reason.as_deref();
        if reason == Some("expired") && membership.has_callback() {
            membership.token = None;
            self.enqueue(room);
            return;
        }
        if membership.call.is_some() {
            // A join is on its way, and would make the client a member again.
            self.control(OutgoingFrame::about("leave", Some(room)), Reply::Nobody);
        }
        let code = reason.unwrap_or("removed");
        self.give_up(room, Error::new(code, "the server ended the membership"));
    }

    pub(super) fn on_presence(&mut self, frame: PresencePayload) {
        if let Some(membership) = self.rooms.memberships.get_mut(&frame.room) {
            let room = frame.room.clone();
            merge(&mut membership.presence, frame);
            let presence = membership.presence.clone();
            self.outlet.put(Event::Presence { room, presence });
        }
    }

    /// Whether the application gets this message of a room now. A gap leads to another join.
    pub(super) fn accept_in_room(&mut self, room: String, offset: Option<u64>) -> bool {
        let Some(membership) = self.rooms.memberships.get_mut(&room) else {
            return true;
        };
        let (Some(at), Some(offset)) = (&mut membership.position, offset) else {
            return true;
        };
        let expected = at.offset.saturating_add(1);
        if offset == expected {
            at.offset = offset;
        } else if offset > expected && membership.retry.is_none() {
            self.enqueue(&room);
        }
        offset == expected
    }

    pub(super) fn give_up(&mut self, room: &str, error: Error) {
        self.end_membership(room, &error);
        let room = room.to_owned();
        self.outlet.put(Event::Left { room, error });
    }

    pub(super) fn end_membership(&mut self, room: &str, error: &Error) {
        let Some(membership) = self.rooms.memberships.get(room) else {
            return;
        };
        let (number, waits) = (membership.number, membership.call.is_some());
        if waits {
            self.rooms.unanswered = self.rooms.unanswered.saturating_sub(1);
        }
        self.stop_joining(room);
        self.rooms.to_join.retain(|other| other != room);
        self.rooms.order.remove(&number);
        if let Some(mut membership) = self.rooms.memberships.remove(room) {
            membership.resolve(&Err(error.clone()));
        }
        self.settle(room);
        self.join_next();
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
