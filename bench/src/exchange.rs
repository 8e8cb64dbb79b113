//! One request and its answer over a connection that the server closes, and the statistics of a Redis.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends `request`, and returns the whole answer.
pub(crate) async fn exchange(server: SocketAddr, request: &str) -> anyhow::Result<String> {
    let answer = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    timeout(Duration::from_secs(5), answer).await?
}

/// How often each command of a Redis was called since its start.
pub(crate) async fn redis_calls(redis: SocketAddr) -> anyhow::Result<BTreeMap<String, u64>> {
    let answer = exchange(redis, "INFO commandstats\r\nQUIT\r\n").await?;
    Ok(answer.lines().filter_map(calls_of).collect())
}

/// The command of a line such as `cmdstat_set:calls=21,usec=175`, and its calls.
fn calls_of(line: &str) -> Option<(String, u64)> {
    let (command, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
    let calls = figures.split(',').next()?.parse().ok()?;
    Some((command.to_owned(), calls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_statistics() {
        let line = "cmdstat_client|setinfo:calls=21,usec=175,usec_per_call=8.33";
        assert_eq!(calls_of(line), Some(("client|setinfo".to_owned(), 21)));
        assert_eq!(calls_of("# Commandstats"), None);
    }
}
