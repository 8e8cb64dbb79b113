//! Detects sentinels, and asks them for the master.

use std::collections::HashMap;

use redis::{
    ConnectionInfo, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError,
    aio::MultiplexedConnection,
};

use super::{
    Endpoints,
    endpoints::with_address,
    topology::{HostPort, Topology, is_master, topology_in},
};

impl Endpoints {
    /// Asks the sentinels, one after another, for the master, and asks the master whether it is one.
    pub(super) async fn master(&self) -> Result<ConnectionInfo, RedisError> {
        self.first(|sentinel| self.master_by(sentinel)).await
    }

    async fn master_by(&self, sentinel: ConnectionInfo) -> Result<ConnectionInfo, RedisError> {
        let mut connection = self.open_sentinel(&sentinel).await?;
        let name = match self.sentinel_master() {
            Some(name) => name.to_owned(),
            None => only_master(&mut connection).await?,
        };
        let place: Option<HostPort> = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&name)
            .query_async(&mut connection)
            .await?;
        let Some((host, port)) = place else {
            return Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "the sentinels know no such master (redis.sentinel_master)",
                name,
            )));
        };
        let master = with_address(&sentinel, host, port);
        let mut connection = self.open(&master, None).await?;
        if is_master(&redis::cmd("ROLE").query_async(&mut connection).await?) {
            return Ok(master);
        }
        Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "the sentinels name a server that is not a master yet",
        )))
    }

    /// Connects to a sentinel. Sentinels often need no password even if their servers do.
    async fn open_sentinel(
        &self,
        info: &ConnectionInfo,
    ) -> Result<MultiplexedConnection, RedisError> {
        match self.open(&as_nobody(info), None).await {
            Err(error) if !error.is_io_error() => {
                let settings = info.redis_settings().clone().set_db(0);
                let info = info.clone().set_redis_settings(settings);
                self.open(&info, None).await
            }
            opened => opened,
        }
    }

    /// Asks a server for its kind.
    pub(super) async fn ask_topology(&self, info: ConnectionInfo) -> Result<Topology, RedisError> {
        let error = match self.ask_topology_of(&info).await {
            Err(error) if !error.is_io_error() => error,
            answer => return answer,
        };
        // A sentinel may not know the user of its servers.
        match self.ask_topology_of(&as_nobody(&info)).await {
            Ok(Topology::Sentinel) => Ok(Topology::Sentinel),
            _ => Err(error),
        }
    }

    async fn ask_topology_of(&self, info: &ConnectionInfo) -> Result<Topology, RedisError> {
        let mut connection = self.open(info, None).await?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        Ok(topology_in(&info))
    }
}

fn as_nobody(info: &ConnectionInfo) -> ConnectionInfo {
    let nobody = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    info.clone().set_redis_settings(nobody)
}

async fn only_master(sentinel: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let masters: Vec<HashMap<String, String>> = redis::cmd("SENTINEL")
        .arg("MASTERS")
        .query_async(sentinel)
        .await?;
    let mut names = masters
        .into_iter()
        .filter_map(|mut master| master.remove("name"));
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "the sentinels watch several masters or none; name one by redis.sentinel_master",
        ))),
    }
}
