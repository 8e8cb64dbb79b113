//! Joins: their order, their answers, and their repetition (6.2 and 6.8 of SPEC.md).

use std::sync::Arc;

use super::memberships::Membership;
use super::{Core, Effect, Timer, TokenOf};
use crate::error::{Error, TokenError, codes};
use crate::frames::{Answered, Place};
use crate::options::RoomToken;

/// The most joins without an answer.
const JOINS_MAX: usize = 50;

impl Core {
    /// Joins the room when it is its turn.
    pub(super) fn enqueue(&mut self, room: &str) {
        if !self.is_up() {
            return;
        }
        let Some(membership) = self.rooms.memberships.get_mut(room) else {
            return;
        };
        if membership.call.is_some() || membership.fetching.is_some() {
            return;
        }
        self.timers.cancel(&mut membership.retry);
        if !membership.queued {
            membership.queued = true;
            self.rooms.to_join.push_back(room.to_owned());
        }
        self.join_next();
    }

    pub(super) fn join_again(&mut self, room: &str) {
        if let Some(membership) = self.rooms.memberships.get_mut(room) {
            membership.retry = None;
            self.enqueue(room);
        }
    }

    pub(super) fn join_next(&mut self) {
        while self.rooms.unanswered < JOINS_MAX
            && let Some(room) = self.rooms.to_join.pop_front()
        {
            let Some(membership) = self.rooms.memberships.get_mut(&room) else {
                continue;
            };
            membership.queued = false;
            self.rooms.unanswered += 1;
            match &membership.options.token {
                Some(RoomToken::Callback(callback)) if membership.token.is_none() => {
                    let (callback, name) = (Arc::clone(callback), room.clone());
                    let fetch = Box::pin(async move { callback(name).await });
                    let of = TokenOf::Room(room.clone());
                    self.effects.push_back(Effect::Fetch(of, fetch));
                    let limit = self.now.plus(self.options.token_timeout).instant;
                    membership.fetching = Some(self.timers.set(limit, Timer::RoomToken(room)));
                }
                _ => self.send_join(&room),
            }
        }
    }

    fn send_join(&mut self, room: &str) {
        if let Some(membership) = self.rooms.memberships.get(room) {
            let (frame, since) = (membership.frame(room), membership.position.clone());
            let id = self.control_join(frame, room);
            if let Some(membership) = self.rooms.memberships.get_mut(room) {
                membership.call = Some((id, since));
            }
        }
    }

    pub(super) fn on_room_token(&mut self, room: &str, result: Result<String, TokenError>) {
        let Some(membership) = self.rooms.memberships.get_mut(room) else {
            return;
        };
        if membership.fetching.is_none() {
            return;
        }
        self.timers.cancel(&mut membership.fetching);
        self.rooms.unanswered = self.rooms.unanswered.saturating_sub(1);
        match result {
            Ok(token) => {
                membership.token = Some(token);
                membership.fresh = true;
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
        let Some(membership) = self.rooms.memberships.get_mut(room) else {
            return;
        };
        let Some((_, since)) = membership.call.take_if(|(call, _)| call == id) else {
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
        let Some(membership) = self.rooms.memberships.get_mut(room) else {
            return;
        };
        membership.joined = true;
        membership.confirmed = true;
        membership.fresh = false;
        membership.backoff.reset();
        let (recovered, reason) = match place {
            None => (Some(false), Some("no_history".to_owned())),
            Some(place) => (place.recovered, place.reason.clone()),
        };
        let recovered = had_since.then_some(recovered == Some(true));
        if recovered != Some(true) {
            // Old messages that the client asked for are still to come.
            membership.position = place.and_then(Place::start);
        }
        let rejoin = std::mem::take(&mut membership.rejoin);
        if !rejoin {
            membership.resolve(&Ok(recovered));
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
        let Some(membership) = self.rooms.memberships.get_mut(room) else {
            return;
        };
        if std::mem::take(&mut membership.rejoin) {
            self.enqueue(room);
        } else if error.code == "invalid_token" && membership.has_callback() && !membership.fresh {
            // The token was good for an earlier join, and has expired since.
            membership.token = None;
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
        if let Some(membership) = self.rooms.memberships.get_mut(room) {
            let at = self
                .now
                .plus(membership.backoff.next(&mut self.random))
                .instant;
            membership.retry = Some(self.timers.set(at, Timer::Join(room.to_owned())));
        }
    }

    /// Messages no longer wait for this room.
    pub(super) fn settle(&mut self, room: &str) {
        let waits =
            |membership: &Membership| membership.call.is_some() || membership.fetching.is_some();
        if self.rooms.memberships.get(room).is_some_and(waits) || !self.rooms.unsettled.remove(room)
        {
            return;
        }
        if self.rooms.unsettled.is_empty() {
            self.flow();
        }
    }
}
