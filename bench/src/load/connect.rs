//! Opens the connections of a run, many at a time but not all at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::LoadError;
use super::plan::Plan;
use crate::frame::{MaskKeys, Opcode, put_client_frame};
use crate::handshake;
use crate::socket::{FrameReader, SendError, SharedWriter, split};

/// Number of concurrent handshakes. It is below the usual backlog of a listener, so that no SYN is dropped and
/// retransmitted a second later.
const CONNECTING_MAX: usize = 128;

/// Time limit for opening one connection, TCP and upgrade.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// Connections per source address. The usual range of ephemeral ports has 28,000 ports.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 20_000;

/// Upper bound of the data queued for one connection, in bytes.
const OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One open connection.
pub(super) type Connection = (FrameReader, Arc<SharedWriter>);

/// Opens all connections of the plan and returns them in the order of their index.
pub(super) async fn connect_all(plan: &Plan) -> Result<Vec<Connection>, LoadError> {
    let count = plan.connections();
    let shared = Arc::new(plan.clone());
    let mut opened: Vec<Option<Connection>> = Vec::new();
    opened.resize_with(count, || None);
    let mut connecting = JoinSet::new();
    let mut next = 0;
    loop {
        while next < count && connecting.len() < CONNECTING_MAX {
            connecting.spawn(connect_one(Arc::clone(&shared), next));
            next += 1;
        }
        match connecting.join_next().await {
            None => break,
            Some(Ok((index, connection))) => {
                let failed = |reason| LoadError::Connect {
                    index,
                    count,
                    address: plan.site(index).address,
                    reason,
                };
                opened[index] = Some(connection.map_err(failed)?);
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    Ok(opened.into_iter().flatten().collect())
}

async fn connect_one(plan: Arc<Plan>, index: usize) -> (usize, Result<Connection, String>) {
    let connection = async {
        let site = plan.site(index);
        let source = source_address(site.address, index, plan.connections());
        let mut stream = open_stream(site.address, source)
            .await
            .map_err(|error| error.to_string())?;
        let handshake =
            handshake::request(&mut stream, &site.host, &plan.request_target(index), None).await;
        let rest = handshake.map_err(|error| error.to_string())?;
        let (reader, writer) =
            split(stream, rest, OUTBOX_BYTES_MAX).map_err(|error| error.to_string())?;
        if let Some(greeting) = plan.target.protocol().greeting() {
            greet(&writer, greeting).map_err(|error| error.to_string())?;
        }
        Ok((reader, writer))
    };
    let late = || {
        Err(format!(
            "no connection within {} s",
            CONNECT_TIME_MAX.as_secs()
        ))
    };
    (
        index,
        timeout(CONNECT_TIME_MAX, connection)
            .await
            .unwrap_or_else(|_| late()),
    )
}

/// Sends a text as the first frame.
fn greet(writer: &Arc<SharedWriter>, greeting: &str) -> Result<(), SendError> {
    let mut frame = Vec::new();
    let key = MaskKeys::random().next_key();
    put_client_frame(&mut frame, Opcode::Text, greeting.as_bytes(), key);
    writer.send(&frame)
}

async fn open_stream(address: SocketAddr, source: Option<Ipv4Addr>) -> std::io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect(address).await;
    };
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.connect(address).await
}

/// Every address of 127.0.0.0/8 belongs to this machine, so a loopback target can be reached from more ports than one
/// source address has.
fn source_address(target: SocketAddr, index: usize, count: usize) -> Option<Ipv4Addr> {
    let several = count > CONNECTIONS_PER_ADDRESS_MAX;
    let loopback = matches!(target.ip(), IpAddr::V4(address) if address.is_loopback());
    let block = u32::try_from(index / CONNECTIONS_PER_ADDRESS_MAX).ok()?;
    (several && loopback).then(|| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_ports_come_from_several_addresses() {
        let target = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(source_address(target, 19_999, 20_000), None);
        assert_eq!(
            source_address(target, 19_999, 50_000),
            Some(Ipv4Addr::new(127, 0, 0, 1))
        );
        assert_eq!(
            source_address(target, 20_000, 50_000),
            Some(Ipv4Addr::new(127, 0, 0, 2))
        );
        assert_eq!(
            source_address(SocketAddr::from(([192, 0, 2, 1], 80)), 20_000, 50_000),
            None
        );
    }
}
