//! The configured addresses, and how to connect to the servers behind them.

use std::{collections::BTreeSet, fs, io, path::PathBuf, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisError, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use signalbox_config::{RedisConfig, RedisMode};
use tokio::sync::watch;

use super::{
    link::{Link, masters_in},
    login::LoginChanges,
    topology::{Topology, owner_of},
};

/// Time to open one TCP connection with its TLS and Redis handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time to discover a whole cluster: several connections one after another.
const CLUSTER_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a command that a server of a cluster did not carry out is sent again.
const CLUSTER_RETRIES: u32 = 3;

/// The addresses of Redis, and the login. Clones share the login, which can change.
#[derive(Clone)]
pub struct Endpoints {
    infos: Arc<watch::Sender<Vec<ConnectionInfo>>>,
    mode: RedisMode,
    sentinel_master: Option<String>,
    certificates: Option<TlsCertificates>,
    command_timeout: Duration,
}

/// Why the configured addresses cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// An address is malformed.
    #[error("redis.url: {0}")]
    Url(RedisError),
    /// The file with the certificate authority is not usable.
    #[error("redis.ca_file: {path}: {reason}", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A connection to the server that has the channel. It passes on what the server pushes, and closes when it is dropped.
pub struct SubscriberConnection {
    /// For SUBSCRIBE and queries to that server.
    pub connection: MultiplexedConnection,
    /// The topology behind the addresses.
    pub topology: Topology,
}

impl Endpoints {
    /// Reads the addresses.
    ///
    /// # Errors
    /// Returns [`EndpointError`] with the configuration key that is wrong.
    pub fn new(config: &RedisConfig) -> Result<Self, EndpointError> {
        // rustls needs one cryptography provider per process. If one is set already, it is just as good.
        let _ = aws_lc_rs::default_provider().install_default();
        let certificates = config.ca_file.as_ref().map(certificates).transpose()?;
        let infos = connection_infos(&config.urls, certificates.as_ref())?;
        Ok(Self {
            infos: Arc::new(watch::Sender::new(infos)),
            mode: config.mode,
            sentinel_master: config.sentinel_master.clone(),
            certificates,
            command_timeout: config.command_timeout,
        })
    }

    fn infos(&self) -> Vec<ConnectionInfo> {
        self.infos.borrow().clone()
    }

    /// Takes user and password from `urls`, which must otherwise equal the current ones. New connections use them, and
    /// existing ones log in again. If the addresses cannot be parsed, nothing changes.
    pub fn set_logins(&self, urls: &[String]) {
        let Ok(infos) = connection_infos(urls, self.certificates.as_ref()) else {
            return;
        };
        self.infos.send_if_modified(|old| {
            let is_other = logins(old) != logins(&infos);
            *old = infos;
            is_other
        });
    }

    /// Notifies of each change of the login.
    pub fn login_changes(&self) -> LoginChanges {
        LoginChanges::of(self.infos.subscribe())
    }

    /// Logs an open connection in with the current login. If the server does not accept it, the connection stays as it
    /// is.
    ///
    /// # Errors
    /// Returns the reason if no login is accepted.
    pub async fn log_in(&self, connection: &MultiplexedConnection) -> Result<(), RedisError> {
        let mut refusal = Ok(());
        for (user, password) in logins(&self.infos()) {
            let Some(password) = password else {
                continue;
            };
            let mut command = redis::cmd("AUTH");
            command.arg(user).arg(password);
            refusal = command.exec_async(&mut connection.clone()).await;
            if refusal.is_ok() {
                return Ok(());
            }
        }
        refusal
    }

    /// How long a command may take.
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// The name of the master to ask the sentinels for, if one is configured.
    pub(super) fn sentinel_master(&self) -> Option<&str> {
        self.sentinel_master.as_deref()
    }

    /// Opens a link for commands.
    pub(super) async fn link(&self) -> Result<Link, RedisError> {
        let topology = self.topology().await?;
        let connection = match topology {
            Topology::Single => self.first_connection().await?,
            Topology::Sentinel => self.open(&self.master().await?, None).await?,
            Topology::Cluster => return self.cluster_link().await,
        };
        Ok(Link::One {
            connection,
            topology,
        })
    }

    /// Opens a connection to the server where messages of `channel` arrive, and passes everything that is pushed to
    /// `push`.
    ///
    /// # Errors
    /// Returns [`RedisError`] if the server cannot be found, or does not answer in time.
    pub async fn subscriber(
        &self,
        channel: &str,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<SubscriberConnection, RedisError> {
        let topology = self.topology().await?;
        let info = match topology {
            Topology::Single => self.first_reachable().await?,
            Topology::Sentinel => self.master().await?,
            Topology::Cluster => self.slot_owner(channel).await?,
        };
        let push = move |info| {
            push(info);
            Ok::<(), redis::aio::SendError>(())
        };
        let config = self.connection_config().set_push_sender(push);
        Ok(SubscriberConnection {
            connection: self.open(&info, Some(config)).await?,
            topology,
        })
    }

    async fn topology(&self) -> Result<Topology, RedisError> {
        match self.mode {
            RedisMode::Single => Ok(Topology::Single),
            RedisMode::Cluster => Ok(Topology::Cluster),
            RedisMode::Sentinel => Ok(Topology::Sentinel),
            RedisMode::Auto => self.first(|info| self.ask_topology(info)).await,
        }
    }

    /// The first address that answers.
    async fn first_reachable(&self) -> Result<ConnectionInfo, RedisError> {
        self.first(|info| async move { self.open(&info, None).await.map(|_| info) })
            .await
    }

    async fn first_connection(&self) -> Result<MultiplexedConnection, RedisError> {
        self.first(|info| async move { self.open(&info, None).await })
            .await
    }

    /// Calls `ask` for one address after another. Returns the first success, or else the last error.
    pub(super) async fn first<T, F>(
        &self,
        ask: impl Fn(ConnectionInfo) -> F,
    ) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut failure =
            RedisError::from((ErrorKind::InvalidClientConfig, "no address is configured"));
        for info in self.infos() {
            match ask(info).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn cluster_link(&self) -> Result<Link, RedisError> {
        let mut repeating = self.cluster(CLUSTER_RETRIES).await?;
        let slots = repeating
            .req_packed_command(redis::cmd("CLUSTER").arg("SLOTS"))
            .await?;
        Ok(Link::Cluster {
            masters: masters_in(slots)?,
            once: self.cluster(0).await?,
            repeating,
        })
    }

    async fn cluster(&self, retries: u32) -> Result<ClusterConnection, RedisError> {
        let mut builder = ClusterClientBuilder::new(self.infos())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(self.command_timeout)
            .overall_response_timeout(Some(self.command_timeout))
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .retries(retries);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        let client = builder.build()?;
        // The crate limits the time of each connection, but not of the discovery of the cluster.
        in_time(CLUSTER_CONNECT_TIMEOUT, client.get_async_connection()).await
    }

    /// The server of a cluster that owns the slot of `channel`.
    async fn slot_owner(&self, channel: &str) -> Result<ConnectionInfo, RedisError> {
        self.first(|info| async move {
            let mut connection = self.open(&info, None).await?;
            let slot: u16 = redis::cmd("CLUSTER")
                .arg("KEYSLOT")
                .arg(channel)
                .query_async(&mut connection)
                .await?;
            let slots: Vec<Value> = redis::cmd("CLUSTER")
                .arg("SLOTS")
                .query_async(&mut connection)
                .await?;
            let (host, port) = owner_of(&slots, slot).ok_or((
                ErrorKind::InvalidClientConfig,
                "no server of the cluster owns the slot of this server's channel",
            ))?;
            let host = if host.is_empty() {
                host_of(&info)
            } else {
                host
            };
            Ok(with_address(&info, host, port))
        })
        .await
    }

    pub(super) async fn open(
        &self,
        info: &ConnectionInfo,
        config: Option<AsyncConnectionConfig>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = Client::open(info.clone())?;
        let config = config.unwrap_or_else(|| self.connection_config());
        // The crate's own timeout does not cover the handshakes after the TCP connection.
        let opened = client.get_multiplexed_async_connection_with_config(&config);
        in_time(CONNECT_TIMEOUT, opened).await
    }

    fn connection_config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.command_timeout))
    }
}

impl std::fmt::Debug for Endpoints {
    // Addresses may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Endpoints({} of them, {:?})",
            self.infos.borrow().len(),
            self.mode
        )
    }
}

async fn in_time<T>(
    time: Duration,
    work: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    tokio::time::timeout(time, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

fn certificates(path: &PathBuf) -> Result<TlsCertificates, EndpointError> {
    let useless = |reason: String| EndpointError::CaFile {
        path: path.clone(),
        reason,
    };
    let pem = fs::read(path).map_err(|error| useless(error.to_string()))?;
    let count = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| useless(error.to_string()))?
        .len();
    if count == 0 {
        return Err(useless(
            "holds no certificate in PEM (BEGIN CERTIFICATE)".to_owned(),
        ));
    }
    Ok(TlsCertificates {
        client_tls: None,
        root_cert: Some(pem),
    })
}

fn connection_infos(
    urls: &[String],
    certificates: Option<&TlsCertificates>,
) -> Result<Vec<ConnectionInfo>, EndpointError> {
    urls.iter()
        .map(|url| connection_info(url, certificates))
        .collect()
}

/// Users and passwords, each once.
fn logins(infos: &[ConnectionInfo]) -> BTreeSet<(Option<String>, Option<String>)> {
    let logins = infos.iter().map(ConnectionInfo::redis_settings);
    logins
        .map(|login| {
            (
                login.username().map(str::to_owned),
                login.password().map(str::to_owned),
            )
        })
        .collect()
}

fn connection_info(
    url: &str,
    certificates: Option<&TlsCertificates>,
) -> Result<ConnectionInfo, EndpointError> {
    let mut info = url.into_connection_info().map_err(EndpointError::Url)?;
    if let Some(certificates) = certificates {
        let client =
            Client::build_with_tls(info, certificates.clone()).map_err(EndpointError::Url)?;
        info = client.get_connection_info().clone();
    }
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    Ok(info
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

/// The same settings for a connection to another server.
pub(super) fn with_address(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

fn host_of(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        other => other.to_string(),
    }
}
