//! Frames about rooms: `join`, `leave`, and `history`.

use signalbox_pipeline as pipeline;
use signalbox_protocol::{Envelope, ErrorCode, HistoryRequest, JoinRequest, outbound::AckStatus};

use super::{
    super::{
        membership::MemberChange,
        room_tokens,
        rooms::{self, JoinedRoom},
    },
    Answer, FrameContext, NotSent, SessionChange,
};

/// A room that was joined.
struct Joined<'a> {
    room: &'a str,
    /// `Some` if the room has a history.
    history: Option<JoinedRoom>,
    /// Whether the client wants to know who is there.
    presence: bool,
    /// Whether the membership ends with a token.
    is_granted: bool,
    /// `None` if the connection was a member before.
    change: Option<MemberChange>,
}

impl FrameContext<'_> {
    /// Handles `join`, answers it, and sends the messages that the client missed, and the users in the room.
    pub(super) async fn join_and_catch_up(&self, envelope: &Envelope<'_>) -> Option<SessionChange> {
        let joined = match self.join(envelope).await {
            Ok(joined) => joined,
            Err(error) => {
                self.answer(Err(error));
                return None;
            }
        };
        let history = joined.history.as_ref();
        self.answer(Ok(Answer {
            room: history.map(|joined| joined.history.at.clone()),
            ..Answer::from(AckStatus::Handled)
        }));
        let services = self.actor.services;
        if let Some(history) = joined.history {
            history.go_live(services, self.connection).await;
        }
        if joined.presence {
            services.router.watch_members(self.connection, joined.room);
        }
        if let Some(change) = joined.change {
            self.actor.report(change, joined.room).await;
        }
        joined.is_granted.then_some(SessionChange::RoomToken)
    }

    /// Handles `leave`, and answers it.
    pub(super) async fn leave(&self, envelope: &Envelope<'_>) {
        let room = match named_room(envelope, "`room` names the room to leave") {
            Ok(room) => room,
            Err(error) => return self.answer(Err(error)),
        };
        let left = rooms::leave(self.actor.services, self.connection, room);
        self.answer(Ok(AckStatus::Handled.into()));
        if let Some(change) = left {
            self.actor.report(change, room).await;
        }
    }

    /// Makes the connection a member of a room.
    async fn join<'e>(&self, envelope: &'e Envelope<'_>) -> Result<Joined<'e>, NotSent> {
        let services = self.actor.services;
        let room = named_room(envelope, "`room` names the room to join")?;
        let request = match JoinRequest::parse(envelope.payload) {
            Ok(request) => request,
            Err(reason) if self.connection.v1() => {
                return Err(NotSent::refused(ErrorCode::InvalidPayload, reason));
            }
            // A client of websocket-app may carry anything there.
            Err(_) => JoinRequest::default(),
        };
        if !rooms::may_join(services, self.client, room) {
            return Err(NotSent::refused(
                ErrorCode::ForbiddenRoom,
                "the rules of this room do not let this client join",
            ));
        }
        let token = request.token.as_deref();
        let grant = room_tokens::check(services, self.connection, room, token).await?;
        let plugins = services.manager.enter().await;
        let verdict = pipeline::authorize_join(&plugins, self.client, room).await;
        drop(plugins);
        verdict?;
        let is_granted = grant.is_some();
        let catch_up = request.catch_up;
        let joined = match grant {
            None => rooms::join(services, self.connection, room, catch_up).await?,
            Some(grant) => {
                room_tokens::join(services, self.connection, room, grant, catch_up).await?
            }
        };
        Ok(Joined {
            room,
            history: joined.history,
            presence: request.presence,
            is_granted,
            change: joined.change,
        })
    }

    /// Reads messages of the history of a room of which the connection is a member.
    pub(super) async fn read_back(&self, room: &str, payload: &str) -> Result<Answer, NotSent> {
        if self.id.is_none() {
            return Err(NotSent::refused(
                ErrorCode::InvalidId,
                "`id` is missing: the messages come in the `ack`",
            ));
        }
        if !self.connection.is_member(room) {
            return Err(NotSent::refused(
                ErrorCode::NotInRoom,
                "join the room before you read its history",
            ));
        }
        let request = HistoryRequest::parse(payload)
            .map_err(|reason| NotSent::refused(ErrorCode::InvalidPayload, reason))?;
        let excerpt = rooms::read_back(self.actor.services, room, request).await?;
        Ok(Answer {
            history: Some(excerpt),
            ..Answer::from(AckStatus::Handled)
        })
    }
}

/// The room of a frame about rooms. `missing` says what it is for.
///
/// # Errors
/// Returns [`NotSent`] if the frame names none, or an invalid one.
pub(super) fn named_room<'e>(
    envelope: &'e Envelope<'_>,
    missing: &'static str,
) -> Result<&'e str, NotSent> {
    let room = envelope.room.as_deref();
    room.ok_or_else(|| NotSent::refused(ErrorCode::InvalidRoom, missing))
}
