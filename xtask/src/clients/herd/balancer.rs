//! A TCP balancer: each connection goes to the next node that is ready, whichever it had before.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::PATIENCE;
use crate::cluster::is_ready;

/// Time between two questions whether a node is ready.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Two threads of this size for each connection.
const STACK_BYTES: usize = 64 << 10;

/// A listener in front of the nodes. Everything ends when this value is dropped.
pub(super) struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    nodes: Vec<Node>,
    turn: AtomicUsize,
    links: Mutex<Vec<Arc<Link>>>,
    is_over: AtomicBool,
}

struct Node {
    /// None: it is down.
    address: Mutex<Option<SocketAddr>>,
    is_ready: AtomicBool,
}

/// A connection of a client.
struct Link {
    client: TcpStream,
    server: TcpStream,
    node: usize,
    /// The directions in which data may still come.
    open: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Balancer {
    /// Listens on a free port, and waits until all nodes are ready.
    pub(super) fn start(nodes: &[SocketAddr]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let address = listener.local_addr()?;
        let node = |address: &SocketAddr| Node {
            address: Mutex::new(Some(*address)),
            is_ready: AtomicBool::new(false),
        };
        let shared = Arc::new(Shared {
            nodes: nodes.iter().map(node).collect(),
            turn: AtomicUsize::new(0),
            links: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        for number in 0..nodes.len() {
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || shared.check(number)));
        }
        let accepting = Arc::clone(&shared);
        threads.push(thread::spawn(move || accept(&listener, &accepting)));
        let balancer = Self {
            address,
            shared,
            threads,
        };
        (0..nodes.len()).try_for_each(|number| balancer.until_ready(number))?;
        Ok(balancer)
    }

    /// The URL that clients connect to.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Changes the address of a node; None: it is down.
    pub(super) fn set(&self, node: usize, address: Option<SocketAddr>) {
        let node = &self.shared.nodes[node];
        let mut known = lock(&node.address);
        *known = address;
        node.is_ready.store(false, Ordering::Relaxed);
    }

    /// Waits until a node is ready for clients.
    pub(super) fn until_ready(&self, node: usize) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.shared.nodes[node].is_ready.load(Ordering::Relaxed) {
            ensure!(
                Instant::now() < end,
                "node {} is not ready within {PATIENCE:?}",
                node + 1
            );
            thread::sleep(CHECK_INTERVAL);
        }
        Ok(())
    }

    /// How many clients a node has.
    pub(super) fn clients(&self, node: usize) -> usize {
        let links = lock(&self.shared.links);
        links.iter().filter(|link| link.node == node).count()
    }

    /// A function that returns the address of the next node that is ready.
    pub(super) fn picker(&self) -> impl Fn() -> Option<SocketAddr> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.pick().map(|(_, address)| address)
    }
}

impl Shared {
    /// Asks a node again and again whether it is ready.
    fn check(&self, number: usize) {
        let node = &self.nodes[number];
        while !self.is_over.load(Ordering::Relaxed) {
            let asked = *lock(&node.address);
            let ready = asked.is_some_and(is_ready);
            {
                // The node may have moved in the meantime.
                let now = lock(&node.address);
                if *now == asked {
                    node.is_ready.store(ready, Ordering::Relaxed);
                }
            }
            thread::sleep(CHECK_INTERVAL);
        }
    }

    /// The next node that is ready.
    fn pick(&self) -> Option<(usize, SocketAddr)> {
        let count = self.nodes.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (first..first + count).find_map(|turn| {
            let number = turn % count;
            let node = &self.nodes[number];
            let address = (*lock(&node.address))?;
            node.is_ready
                .load(Ordering::Relaxed)
                .then_some((number, address))
        })
    }

    /// Connects to the next node that is ready, or to the one after it.
    fn connect(&self) -> Option<(usize, TcpStream)> {
        (0..self.nodes.len()).find_map(|_| {
            let (number, address) = self.pick()?;
            Some((number, TcpStream::connect(address).ok()?))
        })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts. If that fails, it has ended.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            // None of them panics.
            let _ = thread.join();
        }
        for link in lock(&self.shared.links).iter() {
            // Both fail only if the connection has ended.
            let _ = link.client.shutdown(Shutdown::Both);
            let _ = link.server.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        // Without a node the client gets no answer, and tries again.
        let Some((node, server)) = shared.connect() else {
            continue;
        };
        let link = Arc::new(Link {
            client,
            server,
            node,
            open: AtomicUsize::new(2),
        });
        // Without it small frames may be late.
        let _ = link.client.set_nodelay(true);
        let _ = link.server.set_nodelay(true);
        lock(&shared.links).push(Arc::clone(&link));
        for to_server in [true, false] {
            let (one, shared) = (Arc::clone(&link), Arc::clone(shared));
            let copying = thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || one.copy(to_server, &shared));
            if copying.is_err() {
                // The other direction ends with it.
                let _ = link.client.shutdown(Shutdown::Both);
                let _ = link.server.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Link {
    /// Copies one direction until it ends.
    fn copy(self: &Arc<Self>, to_server: bool, shared: &Shared) {
        let (mut from, mut to) = if to_server {
            (&self.client, &self.server)
        } else {
            (&self.server, &self.client)
        };
        if copy(&mut from, &mut to).is_err() {
            // What one side cannot send any more, the other one need not read.
            let _ = from.shutdown(Shutdown::Both);
        }
        let _ = to.shutdown(Shutdown::Write);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            lock(&shared.links).retain(|link| !Arc::ptr_eq(link, self));
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 4 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that is ready if `status` is 200, and answers every request with its name.
    fn node(status: u16, name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request = [0; 1024];
                // A request of these tests comes in one piece.
                let _ = stream.read(&mut request);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{name}"
                );
            }
        });
        address
    }

    fn ask(balancer: &Balancer) -> String {
        let answer = crate::http::call(balancer.address, ("GET", "/"), "", &[], Some(PATIENCE));
        answer.expect("an answer").1
    }

    #[test]
    fn connections_go_to_the_nodes_by_turns_and_only_to_those_that_are_ready() {
        let balancer = Balancer::start(&[node(200, "a"), node(200, "b"), node(200, "c")])
            .expect("all are ready");
        let mut names: Vec<_> = (0..3).map(|_| ask(&balancer)).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"]);

        balancer.set(0, Some(node(503, "draining")));
        balancer.set(1, None);
        assert!((0..3).all(|_| ask(&balancer) == "c"));

        balancer.set(0, Some(node(200, "new")));
        balancer.until_ready(0).expect("it is ready");
        let names: Vec<_> = (0..2).map(|_| ask(&balancer)).collect();
        assert!(names.contains(&"new".to_owned()), "{names:?}");
    }

    #[test]
    fn a_link_counts_until_both_directions_have_ended() {
        let balancer = Balancer::start(&[node(200, "a")]).expect("it is ready");
        let client = TcpStream::connect(balancer.address).expect("the balancer listens");
        let until = |count| {
            let end = Instant::now() + PATIENCE;
            while balancer.clients(0) != count {
                assert!(Instant::now() < end, "{}", balancer.clients(0));
                thread::sleep(Duration::from_millis(1));
            }
        };
        until(1);
        drop(client);
        until(0);
    }
}
