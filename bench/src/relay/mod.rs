//! The floor: a relay that copies WebSocket frames between sockets and does nothing else.
//!
//! `/ws?userId=U&peer=P` sends the frames of U to P, `/ws?userId=U&room=R` sends them to every member of R, the sender
//! included. There is no envelope, no identity and no history, so that what a message costs here any server must pay too.
//! The newest connection of a user takes over from an older one.

mod connection;
mod registry;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use registry::Registry;

/// What may wait for one slow receiver, in bytes. Over it the receiver's connection is dropped; the senders never wait.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Time for the upgrade.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Time for the peer to answer a close frame.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// Pause after a failed accept: the usual reason is that all file descriptors are in use, and trying again at once would
/// take a whole core.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Serves connections until the future is dropped. Connections that are open then go on until the runtime ends.
pub async fn serve(listener: TcpListener) {
    let registry = Arc::new(Registry::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection::run(stream, Arc::clone(&registry)));
            }
            Err(error) => {
                report_accept_error(&error);
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

fn report_accept_error(error: &io::Error) {
    eprintln!(
        "cannot accept a connection: {error}; trying again (raise the limit of open files if it says so)"
    );
}
