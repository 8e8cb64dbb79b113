//! A server as a value: for the `signalbox` command, for tests, and for programs that embed one.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use signalbox_config::{Config, ServerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    app::{self, RunningNode, Source, StartError},
    http::Listeners,
};

/// Prepares a [`Server`].
#[derive(Debug)]
pub struct ServerBuilder {
    config: Config,
    source: Option<Source>,
    listeners: Option<Listeners>,
    log_lines_dropped: Arc<AtomicU64>,
}

/// A server that serves until it is shut down.
pub struct Server {
    address: SocketAddr,
    internal_address: Option<SocketAddr>,
    node: RunningNode,
}

impl Server {
    /// Prepares a server with `config`.
    pub fn builder(config: Config) -> ServerBuilder {
        ServerBuilder {
            config,
            source: None,
            listeners: None,
            log_lines_dropped: Arc::default(),
        }
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for operators, backends and scrapers, if they have a separate listener.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal_address
    }

    /// Drains: asks all clients to leave, and ends everything within `server.drain_timeout`.
    pub async fn shut_down(self) {
        self.node.shut_down().await;
    }
}

impl ServerBuilder {
    /// Reads the configuration again from `source` when it changes, and on SIGHUP. Without a source, the configuration
    /// stays, and only changed plugin files are loaded.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Serves on `listeners` instead of `server.listen` and `server.internal_listen`.
    #[must_use]
    pub fn listeners(mut self, listeners: impl Into<Listeners>) -> Self {
        self.listeners = Some(listeners.into());
        self
    }

    /// Shows `lines` in the metrics as the number of log lines that could not be written.
    #[must_use]
    pub fn log_lines_dropped(mut self, lines: Arc<AtomicU64>) -> Self {
        self.log_lines_dropped = lines;
        self
    }

    /// Loads the plugins, then serves. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Returns [`StartError`] if it cannot start.
    pub async fn start(self) -> Result<Server, StartError> {
        let listeners = match self.listeners {
            Some(listeners) => listeners,
            None => listen(&self.config.server).await?,
        };
        let address = listeners.public.local_addr()?;
        let internal = listeners.internal.as_ref();
        let internal_address = internal.map(TcpListener::local_addr).transpose()?;
        let node = app::start(self.config, self.source, listeners, self.log_lines_dropped);
        Ok(Server {
            address,
            internal_address,
            node: node.await?,
        })
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// Returns [`StartError`] if it cannot start; once it serves, only `shutdown` ends it.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StartError> {
        let server = tokio::select! {
            server = self.start() => server?,
            // Large plugins compile for many seconds, and no client is connected yet.
            () = shutdown.cancelled() => {
                info!("stopped before it served");
                return Ok(());
            }
        };
        shutdown.cancelled().await;
        server.shut_down().await;
        Ok(())
    }
}

/// Binds the addresses of the configuration.
async fn listen(config: &ServerConfig) -> Result<Listeners, StartError> {
    Ok(Listeners {
        public: bind(config.listen, "server.listen").await?,
        internal: match config.internal_listen {
            Some(address) => Some(bind(address, "server.internal_listen").await?),
            None => None,
        },
    })
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| StartError::Listen {
            address,
            key,
            error,
        })
}
