//! Opens the connections of a run, many at a time but not all at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::plan::Plan;
use crate::frame::{TEXT, put_client_frame};
use crate::handshake;
use crate::socket::{FrameReader, SharedWriter, split};

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
pub(super) async fn connect_all(plan: &Plan) -> anyhow::Result<Vec<Connection>> {
    let count = plan.connections();
    let connecting = (0..count).map(|index| async move {
        let connected = timeout(CONNECT_TIME_MAX, connect_one(plan, index)).await;
        let late = || format!("no connection within {} s", CONNECT_TIME_MAX.as_secs());
        connected.with_context(late).flatten().with_context(|| {
            let address = plan.site(index).address;
            format!("cannot open connection {index} of {count} to {address}")
        })
    });
    stream::iter(connecting)
        .buffered(CONNECTING_MAX)
        .try_collect()
        .await
}

async fn connect_one(plan: &Plan, index: usize) -> anyhow::Result<Connection> {
    let site = plan.site(index);
    let source = source_address(site.address, index, plan.connections());
    let mut stream = open_stream(site.address, source).await?;
    let target = plan.request_target(index);
    let rest = handshake::request(&mut stream, &site.host, &target, None).await?;
    let (reader, writer) = split(stream, rest, OUTBOX_BYTES_MAX)?;
    if let Some(greeting) = plan.options.target.protocol().greeting {
        let mut frame = Vec::new();
        put_client_frame(&mut frame, TEXT, greeting.as_bytes());
        writer.send(&frame)?;
    }
    Ok((reader, writer))
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
