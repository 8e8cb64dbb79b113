//! The calls of a plugin, as data.

use std::sync::Arc;

use signalbox_protocol::ClientInfo;

use super::message::GuestMessage;

/// The call made to a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// `validation.validate`.
    Validate,
    /// `transformation.transform`.
    Transform,
    /// `screening.screen`: both in one call.
    Screen,
    /// `events.handle`.
    Handle,
    /// `requests.respond`.
    Respond,
}

impl CallKind {
    /// Its name in reports.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Transform => "transform",
            Self::Screen => "screen",
            Self::Handle => "handle",
            Self::Respond => "respond",
        }
    }
}

/// How a connection's membership in a room changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// It joined.
    Joined,
    /// It left.
    Left,
}

/// A call of a plugin, to be replayed.
#[derive(Clone, Debug)]
pub enum ReplayCall<'a> {
    /// About a message.
    About(CallKind, GuestMessage<'a>),
    /// `connections.connected`.
    Connected,
    /// `connections.disconnected`, with code and reason.
    Disconnected(u16, &'a str),
    /// `rooms.authorize-join`.
    Join(&'a str),
    /// `membership.joined` or `membership.left`, with the room and the number of connections.
    Membership(MembershipChange, &'a str, u32),
}

/// The user who made the call. A backend message without a sender counts as its own user: backends have a key, and no
/// client can pose as one.
pub(super) fn user_of<'a>(client: Option<&'a Arc<ClientInfo>>, call: &ReplayCall<'a>) -> &'a str {
    match (client, call) {
        (Some(client), _) => &client.user,
        (None, ReplayCall::About(_, message)) if message.sender.is_empty() => message.id,
        (None, ReplayCall::About(_, message)) => message.sender,
        (None, _) => "",
    }
}

impl ReplayCall<'_> {
    /// The size of its texts.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::About(_, message) => message.payload.len(),
            Self::Connected => 0,
            Self::Disconnected(_, text) | Self::Join(text) | Self::Membership(_, text, _) => {
                text.len()
            }
        }
    }
}
