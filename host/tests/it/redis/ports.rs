//! Ports for servers that cannot inherit a listening socket.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// A node of a cluster also listens on its port plus this.
pub(super) const BUS_OFFSET: u16 = 10_000;

/// The start and the size of the search range. Both ports of a pair are below the ephemeral range, so that an outgoing
/// connection cannot take the port of a server while it is down.
const FIRST: u16 = 11_000;
const COUNT: u16 = 11_000;

/// The number of candidates that this process has tried: two tests never get the same one at the same time.
static LOOKED_AT: AtomicU16 = AtomicU16::new(0);

/// A port that was free a moment ago, as was its bus port. Another process may take it first, so the caller must be
/// able to retry.
pub(crate) fn candidate() -> u16 {
    // Test programs that run at the same time start their search at different ports.
    let begin = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = LOOKED_AT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (begin + step) % COUNT;
        if is_free(port) && is_free(port + BUS_OFFSET) {
            return port;
        }
    }
    panic!("no two ports {BUS_OFFSET} apart are free from {FIRST} on");
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
