//! The baseline: a relay that copies WebSocket frames between sockets and does nothing else.
//!
//! `/ws?userId=U&peer=P` sends the frames of U to P, `/ws?userId=U&room=R` sends them to every member of R, including
//! the sender. There is no envelope, no identity and no history, so any server must pay at least the cost of a message
//! here. The newest connection of a user replaces an older one.

mod connection;
mod registry;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use registry::Registry;

/// Upper bound of the data queued for one slow receiver, in bytes. Beyond it, the receiver's connection is dropped;
/// senders never wait.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Time limit for the upgrade.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Time limit for the peer to answer a close frame.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// Pause after a failed accept. The usual reason is that all file descriptors are in use, and retrying at once would
/// take a whole core.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Serves connections until the future is dropped. Connections that are open at that time continue until the runtime
/// ends.
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
