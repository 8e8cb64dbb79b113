//! The import `room-state`.

use signalbox_protocol::ROOM_NAME_BYTES_MAX;
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        bindings::imported::room_state::{self, KeptMessage, Member, RoomError},
        room_state::{RoomMember, RoomMessage, RoomStateError},
    },
    HostState,
};

impl HostState {
    /// Charges one call, and checks the name of its room.
    fn admit_room(&mut self, room: &str) -> Result<(), RoomError> {
        self.charge().ok_or(RoomError::TooManyCalls)?;
        if room.is_empty() || room.len() > ROOM_NAME_BYTES_MAX {
            return Err(RoomError::Invalid);
        }
        Ok(())
    }
}

/// The answer, or [`RoomError::Unavailable`] if it is late.
async fn in_time<T>(
    deadline: Instant,
    answer: impl Future<Output = Result<T, RoomStateError>>,
) -> Result<T, RoomError> {
    let answer = timeout_at(deadline, answer).await;
    Ok(answer.unwrap_or(Err(RoomStateError::Unavailable))?)
}

impl room_state::Host for HostState {
    async fn count(&mut self, room: String) -> Result<u32, RoomError> {
        self.admit_room(&room)?;
        let deadline = self.store_deadline();
        in_time(deadline, self.shared.rooms.count(&room)).await
    }

    async fn members(&mut self, room: String) -> Result<Vec<Member>, RoomError> {
        self.admit_room(&room)?;
        let deadline = self.store_deadline();
        let members = in_time(deadline, self.shared.rooms.members(&room)).await?;
        Ok(members.into_iter().map(Member::from).collect())
    }

    async fn history(
        &mut self,
        room: String,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<KeptMessage>, RoomError> {
        self.admit_room(&room)?;
        if limit == 0 {
            return Err(RoomError::Invalid);
        }
        let deadline = self.store_deadline();
        let history = self.shared.rooms.history(&room, before, limit);
        let messages = in_time(deadline, history).await?;
        Ok(messages.into_iter().map(KeptMessage::from).collect())
    }
}

impl From<RoomStateError> for RoomError {
    fn from(error: RoomStateError) -> Self {
        match error {
            RoomStateError::SwitchedOff => Self::SwitchedOff,
            RoomStateError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<RoomMember> for Member {
    fn from(member: RoomMember) -> Self {
        Self {
            user: member.user,
            connections: member.connections,
            info: member.info,
        }
    }
}

impl From<RoomMessage> for KeptMessage {
    fn from(message: RoomMessage) -> Self {
        Self {
            offset: message.offset,
            event_type: message.event_type,
            sender: message.sender,
            payload: message.payload,
            timestamp: message.timestamp_ms,
        }
    }
}
