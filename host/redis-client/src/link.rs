//! One link for commands, to whatever is behind the addresses.

use std::{collections::BTreeSet, time::Duration};

use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{
        MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo,
    },
};
use tokio::time::sleep;

use super::topology::{HostPort, Topology, cluster_fault, is_master, masters};

/// The pause before a command that a server of a cluster refused is sent again.
const REDIRECT_PAUSE: Duration = Duration::from_millis(5);

/// Where commands go.
pub(super) enum Link {
    /// To the one server that has all keys.
    One {
        connection: MultiplexedConnection,
        topology: Topology,
    },
    /// To all masters.
    Cluster {
        /// Sends a command again if its connection broke, so it may be carried out twice.
        repeating: ClusterConnection,
        /// Sends a command once.
        once: ClusterConnection,
        /// The masters when the link was made.
        masters: BTreeSet<HostPort>,
    },
}

impl Link {
    pub(super) fn topology(&self) -> Topology {
        match self {
            Self::One { topology, .. } => *topology,
            Self::Cluster { .. } => Topology::Cluster,
        }
    }

    /// Runs `command`; if its connection breaks, it may be carried out twice.
    pub(super) async fn run(&self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One { connection, .. } => connection.clone().req_packed_command(command).await,
            Self::Cluster { repeating, .. } => repeating.clone().req_packed_command(command).await,
        }
    }

    /// Runs `command` once or not at all.
    pub(super) async fn run_once(&self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One { connection, .. } => connection.clone().req_packed_command(command).await,
            Self::Cluster { once, .. } => loop {
                let answer = once.clone().req_packed_command(command).await;
                match answer.and_then(Value::extract_error) {
                    Err(error) if was_refused(&error) => sleep(REDIRECT_PAUSE).await,
                    answer => return answer,
                }
            },
        }
    }

    /// Runs many commands, and returns the answers in their order.
    pub(super) async fn run_all(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::One { connection, .. } => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.query_async(&mut connection.clone()).await
            }
            Self::Cluster { repeating, .. } => {
                // Keys of several slots cannot share a pipeline; commands that are under way together share packets.
                let each = commands.iter().map(|command| {
                    let mut connection = repeating.clone();
                    async move { connection.req_packed_command(command).await }
                });
                futures_util::future::try_join_all(each).await
            }
        }
    }

    /// Checks that every server answers and still has its role.
    pub(super) async fn look(&self) -> Result<(), LinkError> {
        match self {
            Self::One {
                connection,
                topology,
            } => {
                let mut connection = connection.clone();
                if *topology == Topology::Single {
                    redis::cmd("PING").exec_async(&mut connection).await?;
                } else if !is_master(&redis::cmd("ROLE").query_async(&mut connection).await?) {
                    return Err(LinkError::Outdated("the server is no longer a master"));
                }
                Ok(())
            }
            Self::Cluster {
                repeating,
                masters: known,
                ..
            } => look_at_cluster(repeating, known).await,
        }
    }
}

/// The problem of a link.
pub(super) enum LinkError {
    /// Something does not answer.
    Error(RedisError),
    /// Redis reports a problem of its own. A new link would change nothing.
    Unwell(String),
    /// Redis is healthy, but this link no longer matches it.
    Outdated(&'static str),
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        Self::Error(error)
    }
}

async fn look_at_cluster(
    connection: &ClusterConnection,
    known: &BTreeSet<HostPort>,
) -> Result<(), LinkError> {
    let ask = async |words: &[&str], routing| {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer = connection.clone().route_command(command, routing).await;
        answer.and_then(Value::extract_error)
    };
    let anybody = || RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let slots = ask(&["CLUSTER", "SLOTS"], anybody()).await?;
    if masters_in(slots)? != *known {
        return Err(LinkError::Outdated(
            "the masters of the cluster have changed",
        ));
    }
    let info = ask(&["CLUSTER", "INFO"], anybody()).await?;
    let info: String = redis::from_redis_value(info).map_err(RedisError::from)?;
    if let Some(fault) = cluster_fault(&info) {
        return Err(LinkError::Unwell(fault));
    }
    let all = MultipleNodeRoutingInfo::AllMasters;
    let all = RoutingInfo::MultiNode((all, Some(ResponsePolicy::AllSucceeded)));
    ask(&["PING"], all).await?;
    Ok(())
}

/// The masters in the answer to `CLUSTER SLOTS`.
pub(super) fn masters_in(slots: Value) -> Result<BTreeSet<HostPort>, RedisError> {
    let slots: Vec<Value> = redis::from_redis_value(slots)?;
    Ok(masters(&slots))
}

/// Whether a server of a cluster answered that it did not carry out the command, but another one will, or will soon.
fn was_refused(error: &RedisError) -> bool {
    use ServerErrorKind::{ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    matches!(
        error.kind(),
        ErrorKind::Server(Moved | TryAgain | ClusterDown | MasterDown | ReadOnly)
            | ErrorKind::ClusterConnectionNotFound
    )
}
