//! One connection of the relay: from the upgrade to the close.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::registry::{Registry, RoomGuard};
use super::{HANDSHAKE_TIME_MAX, LINGER_TIME_MAX, OUTBOX_BYTES_MAX};
use crate::frame::{FrameError, Opcode, Writer, close_payload, next_frame, put_server_frame};
use crate::handshake::{self, Upgrade};
use crate::socket::{FrameReader, SharedWriter, split};

thread_local! {
    /// The frames from one read, encoded once for all receivers.
    static FORWARD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Upgrades the stream and relays its frames until it closes. Errors end this connection and do not affect others.
pub(super) async fn run(mut stream: TcpStream, registry: Arc<Registry>) {
    // Boxed, so that the handshake's buffers do not take up memory for the whole life of every connection.
    let handshake = Box::pin(timeout(HANDSHAKE_TIME_MAX, handshake::accept(&mut stream)));
    let Ok(Ok(upgrade)) = handshake.await else {
        return;
    };
    let Some(user) = upgrade.query("userId").map(Box::<str>::from) else {
        return;
    };
    let (receivers, rest) = Receivers::from_upgrade(upgrade);
    if let Ok((mut reader, writer)) = split(stream, rest, OUTBOX_BYTES_MAX) {
        let _user = registry.enter(&user, &writer);
        drop(user);
        let receivers = receivers.connect(&registry, &writer);
        if relay_frames(&mut reader, &writer, receivers, &registry).await == Next::Stop {
            linger(&mut reader).await;
        }
        writer.close();
    }
}

async fn relay_frames(
    reader: &mut FrameReader,
    writer: &Arc<SharedWriter>,
    mut receivers: Receivers,
    registry: &Registry,
) -> Next {
    while let Ok(Some(next)) = reader
        .read_with(|bytes| relay_bytes(bytes, writer, &mut receivers, registry))
        .await
    {
        if next == Next::Stop {
            return Next::Stop;
        }
    }
    Next::Read
}

/// Keeps reading until the peer has seen the close frame and closes. A socket that is closed with unread bytes is
/// reset, and the close frame would be lost.
async fn linger(reader: &mut FrameReader) {
    let discard =
        async { while let Ok(Some(())) = reader.read_with(|bytes| (bytes.len(), ())).await {} };
    // A peer that does not close in time has had the chance to read the close frame.
    let _ = timeout(LINGER_TIME_MAX, discard).await;
}

#[derive(PartialEq, Eq)]
enum Next {
    Read,
    Stop,
}

/// Forwards all complete frames in `bytes` and returns how many bytes were consumed.
fn relay_bytes(
    bytes: &mut [u8],
    writer: &Arc<SharedWriter>,
    receivers: &mut Receivers,
    registry: &Registry,
) -> (usize, Next) {
    FORWARD.with_borrow_mut(|forward| {
        forward.clear();
        let (consumed, next) = collect_frames(bytes, writer, forward);
        if !forward.is_empty() {
            receivers.send(forward, registry);
        }
        if next == Next::Stop {
            return (bytes.len(), next);
        }
        (consumed, next)
    })
}

/// Encodes data frames into `forward` and answers control frames.
fn collect_frames(
    bytes: &mut [u8],
    writer: &Arc<SharedWriter>,
    forward: &mut Vec<u8>,
) -> (usize, Next) {
    let mut at = 0;
    loop {
        match next_frame(bytes, at, Writer::Client) {
            Ok(None) => return (at, Next::Read),
            Ok(Some(frame)) => {
                at = frame.end;
                match frame.opcode {
                    Opcode::Text | Opcode::Binary => {
                        put_server_frame(forward, frame.opcode, frame.payload)
                    }
                    Opcode::Ping => {
                        let mut pong = Vec::with_capacity(frame.payload.len() + 2);
                        put_server_frame(&mut pong, Opcode::Pong, frame.payload);
                        if writer.send(&pong).is_err() {
                            return (at, Next::Stop);
                        }
                    }
                    Opcode::Pong => {}
                    Opcode::Close => {
                        answer_close(writer, frame.payload);
                        return (at, Next::Stop);
                    }
                }
            }
            Err(error) => {
                refuse(writer, error);
                return (at, Next::Stop);
            }
        }
    }
}

/// Completes the closing handshake by echoing the peer's payload (RFC 6455 §5.5.1).
fn answer_close(writer: &Arc<SharedWriter>, payload: &[u8]) {
    let mut close = Vec::with_capacity(payload.len() + 2);
    put_server_frame(&mut close, Opcode::Close, payload);
    writer.send_last(&close);
}

fn refuse(writer: &Arc<SharedWriter>, error: FrameError) {
    let mut close = Vec::with_capacity(4);
    put_server_frame(
        &mut close,
        Opcode::Close,
        &close_payload(error.close_code()),
    );
    writer.send_last(&close);
}

/// The receivers of a connection's frames.
enum Receivers {
    /// One user. The writer is looked up if it is not known yet or is gone.
    Peer(Box<str>, Weak<SharedWriter>),
    /// A room that is named in the upgrade and not joined yet.
    RoomNamed(Box<str>),
    /// All members of a room.
    Room(RoomGuard),
    /// Nobody.
    None,
}

impl Receivers {
    fn from_upgrade(upgrade: Upgrade) -> (Self, Vec<u8>) {
        let receivers = match (upgrade.query("peer"), upgrade.query("room")) {
            (Some(peer), _) => Self::Peer(peer.into(), Weak::new()),
            (None, Some(room)) => Self::RoomNamed(room.into()),
            (None, None) => Self::None,
        };
        (receivers, upgrade.rest)
    }

    fn connect(self, registry: &Arc<Registry>, writer: &Arc<SharedWriter>) -> Self {
        match self {
            Self::RoomNamed(room) => Self::Room(registry.join(&room, writer)),
            other => other,
        }
    }

    /// Writes once for each receiver. A receiver that is absent or too slow gets nothing; the sender does not wait for
    /// it.
    fn send(&mut self, bytes: &[u8], registry: &Registry) {
        match self {
            Self::Peer(user, known) => {
                if known
                    .upgrade()
                    .is_some_and(|writer| writer.send(bytes).is_ok())
                {
                    return;
                }
                if let Some(writer) = registry.user(user) {
                    *known = Arc::downgrade(&writer);
                    // If this fails, the receiver's connection is already closed, and its own task cleans up.
                    let _ = writer.send(bytes);
                }
            }
            Self::Room(room) => {
                for writer in room.members().iter() {
                    let _ = writer.send(bytes);
                }
            }
            Self::RoomNamed(_) | Self::None => {}
        }
    }
}
