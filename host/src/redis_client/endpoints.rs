//! The configured addresses, and what is found behind them.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisError, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};

use crate::config::{RedisConfig, RedisMode};

/// Time to open one TCP connection with its TLS and Redis handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time to find out about a whole cluster: several connections one after another.
const CLUSTER_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What kind of Redis is behind the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server, or one with replicas that clients need not know.
    Single,
    /// Servers that share the keys; every key has its slot.
    Cluster,
    /// A master that sentinels name.
    Sentinel,
}

/// Where Redis is, and as whom to speak to it.
#[derive(Clone)]
pub struct Endpoints {
    infos: Vec<ConnectionInfo>,
    mode: RedisMode,
    sentinel_master: Option<String>,
    certificates: Option<Arc<TlsCertificates>>,
    command_timeout: Duration,
}

/// Why the configured addresses cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// An address is malformed.
    #[error("redis.url: {0}")]
    Url(RedisError),
    /// The file with the certificate authority cannot be read.
    #[error("redis.ca_file: {path}: {source}", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate authority without TLS.
    #[error("redis.ca_file is set, and {0} does not use TLS; write rediss://")]
    CaWithoutTls(String),
}

/// A connection for commands.
#[derive(Clone)]
pub(super) enum Link {
    /// To the one server that has all keys.
    One(MultiplexedConnection),
    /// To all masters.
    Cluster(ClusterConnection),
}

/// A connection to the server that has the channel, which hands on what is pushed. It ends when it is dropped.
pub struct SubscriberConnection {
    /// For SUBSCRIBE and questions to that server.
    pub connection: MultiplexedConnection,
    /// What was found behind the addresses.
    pub topology: Topology,
}

impl Endpoints {
    /// Reads the addresses.
    ///
    /// # Errors
    /// [`EndpointError`] with the key that is wrong.
    pub fn new(config: &RedisConfig) -> Result<Self, EndpointError> {
        let certificates = match &config.ca_file {
            None => None,
            Some(path) => {
                let root_cert = fs::read(path).map_err(|source| EndpointError::CaFile {
                    path: path.clone(),
                    source,
                })?;
                Some(Arc::new(TlsCertificates {
                    client_tls: None,
                    root_cert: Some(root_cert),
                }))
            }
        };
        let infos = config
            .urls
            .iter()
            .map(|url| connection_info(url, certificates.as_deref()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            infos,
            mode: config.mode,
            sentinel_master: config.sentinel_master.clone(),
            certificates,
            command_timeout: config.command_timeout,
        })
    }

    /// How long a command may take.
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// Opens a link for commands.
    pub(super) async fn link(&self) -> Result<(Link, Topology), RedisError> {
        let topology = self.topology().await?;
        let link = match topology {
            Topology::Single => Link::One(self.first_connection().await?),
            Topology::Sentinel => Link::One(self.open(&self.master().await?, None).await?),
            Topology::Cluster => Link::Cluster(self.cluster().await?),
        };
        Ok((link, topology))
    }

    /// Opens a connection to the server where messages of `channel` arrive, with what is pushed handed to `push`.
    ///
    /// # Errors
    /// [`RedisError`] where it is not to be found, or does not answer in time.
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
            RedisMode::Auto => {
                let mut connection = self.first_connection().await?;
                let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
                Ok(topology_in(&info))
            }
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

    /// What `ask` gets from the first address where it gets anything.
    async fn first<T, F>(&self, ask: impl Fn(ConnectionInfo) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut failure = RedisError::from((redis::ErrorKind::InvalidClientConfig, "no address is configured"));
        for info in &self.infos {
            match ask(info.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn cluster(&self) -> Result<ClusterConnection, RedisError> {
        let mut builder = ClusterClientBuilder::new(self.infos.clone())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(self.command_timeout)
            .overall_response_timeout(Some(self.command_timeout))
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .retries(3);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs((**certificates).clone());
        }
        let client = builder.build()?;
        // The crate bounds each connection, not the search for the cluster's shape.
        in_time(CLUSTER_CONNECT_TIMEOUT, client.get_async_connection()).await
    }

    /// Asks the sentinels, one after another, for the master, and the master whether it is one.
    async fn master(&self) -> Result<ConnectionInfo, RedisError> {
        self.first(|sentinel| async move {
            let mut connection = self.open_sentinel(&sentinel).await?;
            let name = match &self.sentinel_master {
                Some(name) => name.clone(),
                None => only_master(&mut connection).await?,
            };
            let address: Option<(String, u16)> = redis::cmd("SENTINEL")
                .arg("GET-MASTER-ADDR-BY-NAME")
                .arg(&name)
                .query_async(&mut connection)
                .await?;
            let Some((host, port)) = address else {
                return Err(RedisError::from((
                    redis::ErrorKind::InvalidClientConfig,
                    "the sentinels know no such master (redis.sentinel_master)",
                    name,
                )));
            };
            let master = with_address(&sentinel, host, port);
            let mut connection = self.open(&master, None).await?;
            let role: Value = redis::cmd("ROLE").query_async(&mut connection).await?;
            if !is_master(&role) {
                return Err(RedisError::from((
                    redis::ErrorKind::InvalidClientConfig,
                    "the sentinels name a server that is no master yet",
                )));
            }
            Ok(master)
        })
        .await
    }

    /// Sentinels often want no password although their servers do.
    async fn open_sentinel(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        let without_name = info
            .clone()
            .set_redis_settings(redis::RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3));
        match self.open(&without_name, None).await {
            Err(error) if error.kind() == redis::ErrorKind::AuthenticationFailed => {
                let settings = info.redis_settings().clone().set_db(0);
                self.open(&info.clone().set_redis_settings(settings), None).await
            }
            opened => opened,
        }
    }

    /// The server of a cluster that owns the slot of `channel`.
    async fn slot_owner(&self, channel: &str) -> Result<ConnectionInfo, RedisError> {
        self.first(|info| async move {
            let mut connection = self.open(&info, None).await?;
            let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(channel).query_async(&mut connection).await?;
            let slots: Vec<Value> = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
            let owner = slots.iter().find_map(|range| owner_of(range, slot));
            let (host, port) = owner.ok_or_else(|| {
                RedisError::from((redis::ErrorKind::InvalidClientConfig, "no server of the cluster owns the slot"))
            })?;
            // A server that was never told its own address announces none: it is the one that was asked.
            let host = if host.is_empty() { host_of(&info) } else { host };
            Ok(with_address(&info, host, port))
        })
        .await
    }

    async fn open(
        &self,
        info: &ConnectionInfo,
        config: Option<AsyncConnectionConfig>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = Client::open(info.clone())?;
        let config = config.unwrap_or_else(|| self.connection_config());
        // The crate's own bound leaves out the handshakes after the TCP connection.
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
        write!(f, "Endpoints({} of them, {:?})", self.infos.len(), self.mode)
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

fn connection_info(
    url: &str,
    certificates: Option<&TlsCertificates>,
) -> Result<ConnectionInfo, EndpointError> {
    let mut info = url.into_connection_info().map_err(EndpointError::Url)?;
    if let Some(certificates) = certificates {
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(EndpointError::CaWithoutTls(host_of(&info)));
        }
        let client = Client::build_with_tls(info, certificates.clone()).map_err(EndpointError::Url)?;
        info = client.get_connection_info().clone();
    }
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

/// The same way of connecting, to another server.
fn with_address(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
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

/// What `INFO server` says about the kind of server.
fn topology_in(info: &str) -> Topology {
    let mode = info.lines().find_map(|line| line.trim().strip_prefix("redis_mode:"));
    match mode {
        Some("cluster") => Topology::Cluster,
        Some("sentinel") => Topology::Sentinel,
        _ => Topology::Single,
    }
}

async fn only_master(sentinel: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let masters: Vec<std::collections::HashMap<String, String>> =
        redis::cmd("SENTINEL").arg("MASTERS").query_async(sentinel).await?;
    let mut names = masters.into_iter().filter_map(|mut master| master.remove("name"));
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(RedisError::from((
            redis::ErrorKind::InvalidClientConfig,
            "the sentinels watch several masters or none; name one by redis.sentinel_master",
        ))),
    }
}

/// `ROLE` answers an array that starts with a word.
fn is_master(role: &Value) -> bool {
    let Value::Array(parts) = role else {
        return false;
    };
    parts
        .first()
        .and_then(|word| redis::from_redis_value_ref::<String>(word).ok())
        .is_some_and(|word| word == "master")
}

/// The master's address in one entry of `CLUSTER SLOTS` (first, last, master, replicas...), where it holds `slot`.
fn owner_of(range: &Value, slot: u16) -> Option<(String, u16)> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [first, last, master, ..] = parts.as_slice() else {
        return None;
    };
    let number = |value: &Value| redis::from_redis_value_ref::<u16>(value).ok();
    if !(number(first)?..=number(last)?).contains(&slot) {
        return None;
    }
    let Value::Array(master) = master else {
        return None;
    };
    let host = match master.first()? {
        Value::Nil => String::new(),
        host => redis::from_redis_value_ref(host).ok()?,
    };
    Some((host, number(master.get(1)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_redis_is_read_from_what_it_says_of_itself() {
        assert_eq!(topology_in("# Server\r\nredis_mode:cluster\r\n"), Topology::Cluster);
        assert_eq!(topology_in("redis_mode:sentinel\r\n"), Topology::Sentinel);
        assert_eq!(topology_in("redis_mode:standalone\r\n"), Topology::Single);
        assert_eq!(topology_in(""), Topology::Single);
    }

    #[test]
    fn the_owner_of_a_slot_is_the_first_server_of_its_range() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = Value::Array(vec![
            Value::Int(100),
            Value::Int(200),
            Value::Array(vec![text("10.0.0.1"), Value::Int(7000), text("id")]),
            Value::Array(vec![text("10.0.0.2"), Value::Int(7001), text("id")]),
        ]);
        assert_eq!(owner_of(&range, 150), Some(("10.0.0.1".to_owned(), 7000)));
        assert_eq!(owner_of(&range, 201), None);
        assert_eq!(owner_of(&Value::Nil, 1), None);
    }
}
