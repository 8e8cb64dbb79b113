//! Connections of the tests to Redis. By default, the library waits half a second for an answer, which is too short on a
//! busy machine.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection, cluster::ClusterClient,
};

/// Time to connect, and for an answer: longer than either takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// A client of the cluster at `urls`, separated by commas.
pub(super) fn cluster_client(urls: &str) -> ClusterClient {
    ClusterClient::builder(urls.split(','))
        .connection_timeout(TIMEOUT)
        .response_timeout(TIMEOUT)
        .build()
        .expect("valid addresses")
}
