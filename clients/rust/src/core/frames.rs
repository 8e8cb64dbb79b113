//! Handles the frames of the server.

use super::link::Link;
use super::{Core, Ending, Moment};
use crate::error::{Error, ErrorPayload, codes};
use crate::events::{Event, Message};
use crate::frames::{RoomPayload, decode, payload};

impl Core {
    /// A text frame has arrived.
    pub(crate) fn received(&mut self, now: Moment, text: &str) {
        self.heard(now);
        self.choice.answered();
        let handled = decode(text).and_then(|message| match self.link {
            Link::Greeting(_) => self.greeted(&message),
            Link::Up(_) => self.handle(message),
            _ => Ok(()),
        });
        if let Err(error) = handled {
            self.invalid_frame(error);
        }
        self.conclude();
    }

    /// A frame has arrived that is not one of the protocol.
    pub(crate) fn invalid_frame(&mut self, reason: impl Into<String>) {
        self.report(Error::new(codes::INVALID_FRAME, reason));
    }

    /// A frame of the client was not accepted, and there is no answer of the server.
    pub(crate) fn not_accepted(&mut self, now: Moment, id: &str, error: Error) {
        self.now = now;
        self.call_refused(id, error);
        self.conclude();
    }

    fn greeted(&mut self, message: &Message) -> Result<(), String> {
        if message.event_type == "welcome" {
            self.welcomed(&payload(message)?);
        }
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<(), String> {
        match message.event_type.as_str() {
            "ack" => self.answered(payload(&message)?),
            "error" => self.refused(payload(&message)?),
            "joined" => self.joined(payload(&message)?),
            "left" => self.on_left(&payload(&message)?),
            "presence" => self.on_presence(payload(&message)?),
            "token_expiring" => self.on_expiring(&payload(&message)?),
            // A second one says nothing.
            "welcome" => {}
            _ => self.message(message),
        }
        Ok(())
    }

    fn refused(&mut self, payload: ErrorPayload) {
        match payload.id.clone() {
            Some(id) => self.call_refused(&id, payload.into()),
            None => self.report(payload.into()),
        }
    }

    fn joined(&mut self, payload: RoomPayload) {
        match payload.user {
            None => self.on_joined(payload),
            Some(place) if self.user.is_some() && place.recovered == Some(false) => {
                // Messages to the user were missed, and the server cannot deliver them any more.
                self.user = place.start();
                self.tell_recovery(None, false, place.reason);
            }
            Some(_) => {}
        }
    }

    fn message(&mut self, message: Message) {
        let accepted = match &message.room {
            Some(room) => self.accept_in_room(room.clone(), message.offset),
            None => self.accept_for_user(message.offset),
        };
        if accepted {
            self.outlet.put(Event::Message(message));
        }
    }

    /// Whether the application gets this message of the user. A gap leads to a reconnect.
    fn accept_for_user(&mut self, offset: Option<u64>) -> bool {
        let (Some(at), Some(offset)) = (&mut self.user, offset) else {
            return true;
        };
        let expected = at.offset.saturating_add(1);
        if offset == expected {
            at.offset = offset;
        } else if offset > expected {
            self.lost(Ending::because("messages to the user are missing"));
        }
        offset == expected
    }
}
