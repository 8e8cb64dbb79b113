//! The protocol between clients and servers: JSON text over a WebSocket.
//!
//! Reading order: [`names`] and [`event_type`] define names, [`json`] the accepted JSON, [`inbound`] parses a client's frame
//! without copying its payload, [`published`] parses messages from other nodes and workers, [`outbound`] writes the
//! frames that the server sends, and [`codes`] is the table of error and close codes.
//!
//! This crate knows no socket, no plugin and no user table.

pub mod codes;
mod destination;
pub mod event_type;
mod fields;
pub mod inbound;
pub mod json;
pub mod names;
pub mod outbound;
mod position;
mod presence;
pub mod published;
mod reader;
mod room_requests;
mod scan;
pub mod timestamp;

pub use codes::{CloseCode, ErrorCode};
pub use destination::Destination;
pub use inbound::{Dialect, Envelope, EnvelopeError};
pub use json::JsonFault;
pub use names::{EventType, NotSendable, ROOM_NAME_BYTES_MAX, RoomName, USER_ID_BYTES_MAX, UserId};
pub use outbound::Frame;
pub use position::{Epoch, OFFSET_MAX, Position};
pub use presence::{MEMBER_INFO_BYTES_MAX, MemberInfo, PresencePayload, PresentUser};
pub use published::{Malformed, Published};
pub use room_requests::{
    CatchUp, HistoryExcerpt, HistoryRequest, JoinRequest, RecoveryFailure, RoomPosition,
};

/// The subprotocol of clients that want a `welcome` and the features that it announces.
pub const SUBPROTOCOL_V1: &str = "signalbox.v1";

/// Maximum nesting depth of arrays and objects in a frame.
pub const JSON_DEPTH_MAX: usize = 100;

/// A connection as described to plugins and operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The connection's ID, unique in the cluster.
    pub connection: String,
    /// The user ID of the client.
    pub user: String,
    /// The claims of its token, as JSON text; `{}` if there is no token.
    pub claims: String,
    /// The client's IP address and port.
    pub address: String,
    /// When it connected, in milliseconds since 1970-01-01T00:00:00Z.
    pub connected_at_ms: u64,
}
