//! The baseline: a relay on axum's WebSocket that copies frames between sockets and does nothing else.
//!
//! `/ws?userId=U&peer=P` sends the frames of U to P, `/ws?userId=U&room=R` sends them to every member of R, including
//! the sender. There is no envelope, no identity and no history. Each frame is read, queued for its receiver and written
//! by the receiver's own task, as a server must do if one client must not wait for another. So any server pays at least
//! the cost of a message here. The newest connection of a user replaces an older one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use futures_util::SinkExt as _;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Sizes of the library's buffers. They are small, because each connection has its own.
const READ_BUFFER_BYTES: usize = 2048;
const WRITE_BUFFER_BYTES: usize = 4096;

/// Upper bound of the frames queued for one receiver. Frames beyond it are dropped: such a receiver reads too slowly to
/// be measured.
const OUTBOX_FRAMES_MAX: usize = 16_384;

/// Users and rooms, each with the queues of their connections.
#[derive(Default)]
struct Hub {
    users: RwLock<HashMap<String, Arc<Outbox>>>,
    rooms: RwLock<HashMap<String, Vec<Arc<Outbox>>>>,
}

/// The frames queued for one connection.
#[derive(Default)]
struct Outbox {
    frames: Mutex<VecDeque<Message>>,
    filled: Notify,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    user_id: String,
    peer: Option<String>,
    room: Option<String>,
}

/// Serves connections until the future is dropped.
///
/// # Errors
/// Returns an error if the listener fails permanently.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/ws", get(upgrade))
        .with_state(Arc::<Hub>::default());
    let listener = listener.tap_io(|stream| {
        // If the stream is already gone, reading it reports that.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, routes).await
}

async fn upgrade(
    State(hub): State<Arc<Hub>>,
    Query(names): Query<Names>,
    upgrade: WebSocketUpgrade,
) -> Response {
    // Registered before the response: a client that sees the response may send to this user.
    let outbox = Arc::<Outbox>::default();
    hub.enter(&names, &outbox);
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .on_upgrade(move |socket| relay(socket, hub, names, outbox))
}

async fn relay(mut socket: WebSocket, hub: Arc<Hub>, names: Names, outbox: Arc<Outbox>) {
    loop {
        tokio::select! {
            frame = socket.recv() => match frame {
                Some(Ok(frame @ (Message::Text(_) | Message::Binary(_)))) => hub.forward(&names, &frame),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            },
            () = outbox.filled.notified() => {
                let frames = std::mem::take(&mut *outbox.frames());
                if write(&mut socket, frames).await.is_err() {
                    break;
                }
            }
        }
    }
    hub.leave(&names, &outbox);
}

/// Writes all queued frames with one flush.
async fn write(socket: &mut WebSocket, frames: VecDeque<Message>) -> Result<(), axum::Error> {
    for frame in frames {
        socket.feed(frame).await?;
    }
    socket.flush().await
}

impl Hub {
    fn enter(&self, names: &Names, outbox: &Arc<Outbox>) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        users.insert(names.user_id.clone(), Arc::clone(outbox));
        if let Some(room) = &names.room {
            let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
            rooms
                .entry(room.clone())
                .or_default()
                .push(Arc::clone(outbox));
        }
    }

    fn leave(&self, names: &Names, outbox: &Arc<Outbox>) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        users.remove(&names.user_id);
        if let Some(room) = &names.room {
            let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(members) = rooms.get_mut(room) {
                members.retain(|member| !Arc::ptr_eq(member, outbox));
            }
        }
    }

    fn forward(&self, names: &Names, frame: &Message) {
        if let Some(peer) = &names.peer {
            let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(outbox) = users.get(peer) {
                outbox.push(frame.clone());
            }
        } else if let Some(room) = &names.room {
            let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
            for outbox in rooms.get(room).into_iter().flatten() {
                outbox.push(frame.clone());
            }
        }
    }
}

impl Outbox {
    fn push(&self, frame: Message) {
        let mut frames = self.frames();
        if frames.len() < OUTBOX_FRAMES_MAX {
            frames.push_back(frame);
        }
        if frames.len() == 1 {
            drop(frames);
            self.filled.notify_one();
        }
    }

    fn frames(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
