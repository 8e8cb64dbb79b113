//! Accepts TCP connections until it is told to stop.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::session::Services;

/// Pause after an error such as "too many open files", which would else come back at once.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Serves `routes` on `listener` until `stop`. Requests under way are finished; sessions are tasks of their own.
pub async fn serve(
    listener: &TcpListener,
    routes: &Router,
    services: &Services,
    stop: &CancellationToken,
) {
    let requests = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let header_timeout = services.live.load().limits.upgrade_timeout;
                let request = one_connection(
                    stream,
                    address,
                    routes.clone(),
                    header_timeout,
                    stop.clone(),
                );
                requests.spawn(request);
            }
            Err(error) => refuse_for_a_moment(&error).await,
        }
    }
    requests.close();
    requests.wait().await;
}

async fn refuse_for_a_moment(error: &io::Error) {
    warn!(%error, "a connection cannot be accepted; trying again (check the limit of open files, ulimit -n)");
    tokio::time::sleep(ERROR_PAUSE).await;
}

async fn one_connection(
    stream: TcpStream,
    address: SocketAddr,
    routes: Router,
    header_timeout: Duration,
    stop: CancellationToken,
) {
    // Without it a burst of small frames waits for the client's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%address, %error, "TCP_NODELAY is not set");
    }
    let asked = Arc::new(AtomicBool::new(false));
    let notice = asked.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        notice.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(address));
        let routes = routes.clone();
        async move { tower_service::Service::call(&mut routes.into_service(), request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            if !asked.load(Ordering::Relaxed) {
                // It may never ask for anything: there is nothing to finish.
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%address, %error, "HTTP connection ended");
    }
}
