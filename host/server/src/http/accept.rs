//! Accepts TCP connections until it is stopped.

use std::{fs::File, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use rustix::io::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{ListenerRoutes, front::Front};
use crate::session::Services;

/// Pause after an accept error that would otherwise recur immediately.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that is refused for lack of a file descriptor may take to send its request.
const REFUSAL_TIME_MAX: Duration = Duration::from_millis(20);

/// The listeners of this node.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub public: TcpListener,
    /// For operators, backends and scrapers, if they have a separate listener.
    pub internal: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(public: TcpListener) -> Self {
        Self {
            public,
            internal: None,
        }
    }
}

/// Serves `routes` on `listeners` until `stop`, and then finishes the requests in progress. Sessions run in separate
/// tasks.
pub async fn serve(
    listeners: &Listeners,
    routes: &ListenerRoutes,
    services: &Arc<Services>,
    stop: &CancellationToken,
) {
    let requests = TaskTracker::new();
    let Listeners { public, internal } = listeners;
    let are_open = routes.are_open;
    let is_loopback = |listener: &TcpListener| {
        let address = listener.local_addr();
        address.is_ok_and(|address| address.ip().is_loopback())
    };
    let front = |listener: &TcpListener, routes: &Router, is_public| {
        let checks_hosts = are_open && is_loopback(listener);
        Front::new(services.clone(), routes.clone(), is_public, checks_hosts)
    };
    let of_public = front(public, &routes.public, true);
    let accepting_public = accept(public, of_public, &requests, stop);
    let accepting_internal = async {
        if let (Some(listener), Some(routes)) = (internal, &routes.internal) {
            let of_internal = front(listener, routes, false);
            accept(listener, of_internal, &requests, stop).await;
        }
    };
    tokio::join!(accepting_public, accepting_internal);
    requests.close();
    requests.wait().await;
}

async fn accept(
    listener: &TcpListener,
    front: Arc<Front>,
    requests: &TaskTracker,
    stop: &CancellationToken,
) {
    let mut reserve = Reserve::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some(connection) = front.admit(stream, address, stop) {
                    requests.spawn(connection);
                }
            }
            Err(error) if are_descriptors_used_up(&error) => {
                warn!(%error, "a connection is refused: raise the limit of open files (ulimit -n, LimitNOFILE)");
                match reserve.accept(listener).await {
                    Some((stream, address)) => {
                        front.refuse(stream, address, REFUSAL_TIME_MAX).await
                    }
                    None => sleep(ERROR_PAUSE).await,
                }
                reserve.restore();
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                warn!(%error, "a connection cannot be accepted; trying again");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// A file descriptor held in reserve. Without it, a connection could not even be refused and would hang.
struct Reserve(Option<File>);

impl Reserve {
    fn new() -> Self {
        let mut reserve = Self(None);
        reserve.restore();
        reserve
    }

    /// Accepts a connection with the reserved descriptor. Returns `None` if another part of the process took it first,
    /// or if the client has gone.
    async fn accept(&mut self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        drop(self.0.take()?);
        let accepted = timeout(REFUSAL_TIME_MAX, listener.accept()).await;
        accepted.ok()?.ok()
    }

    fn restore(&mut self) {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
    }
}

fn are_descriptors_used_up(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].contains(&errno(error))
}

/// Whether the connection ended before it was accepted, which does not affect other connections.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [
        ConnectionAborted,
        ConnectionRefused,
        ConnectionReset,
        Interrupted,
    ]
    .contains(&error.kind())
        || errno(error) == Errno::PROTO
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or_default())
}
