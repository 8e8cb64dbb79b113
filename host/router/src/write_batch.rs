//! Batches the writes of one turn of a task: all are done at its end.
//!
//! A session that reads ten messages to the same client in one turn must not write ten times. While a task is
//! in a [`write_batch`], the connections that it pushes to are collected, and flushed when its turn ends: when it waits for something,
//! or is done. Outside of a batch, it wakes the receiver's session instead.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::Connection;

/// Maximum number of connections that one turn writes to. Beyond that, each connection's own session writes, on all
/// threads, so that a message to a large room is not the work of one thread.
const HELD_MAX: usize = 16;

thread_local! {
    static HELD: RefCell<TurnWrites> = const {
        RefCell::new(TurnWrites { corked: false, connections: Vec::new() })
    };
}

/// The connections that the current turn on this thread has pushed to.
struct TurnWrites {
    /// Whether a turn with a batch is running.
    corked: bool,
    connections: Vec<Arc<Connection>>,
}

pin_project! {
    /// A future that writes at the end of each turn what the turn has pushed. An async function would reserve memory
    /// for the future twice.
    pub struct WriteBatch<F> {
        #[pin]
        future: F,
    }
}

/// Batches the writes of each turn of `future`.
pub fn write_batch<F: Future>(future: F) -> WriteBatch<F> {
    WriteBatch { future }
}

impl<F: Future> Future for WriteBatch<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _cork = EndOfTurn::begin();
        self.project().future.poll(cx)
    }
}

/// Collects `connection` until the turn ends. Returns `false` if it was not collected: its session must be woken.
pub(super) fn defer_flush(connection: &Arc<Connection>) -> bool {
    HELD.with_borrow_mut(|held| {
        let mut connections = held.connections.iter();
        if connections.any(|other| Arc::ptr_eq(other, connection)) {
            return true;
        }
        let room = held.corked && held.connections.len() < HELD_MAX;
        if room {
            held.connections.push(connection.clone());
        }
        room
    })
}

/// Ends the turn when it is dropped, even in a panic.
struct EndOfTurn;

impl EndOfTurn {
    fn begin() -> Self {
        HELD.with_borrow_mut(|held| held.corked = true);
        Self
    }
}

impl Drop for EndOfTurn {
    fn drop(&mut self) {
        let mut connections = HELD.with_borrow_mut(|held| {
            held.corked = false;
            std::mem::take(&mut held.connections)
        });
        for connection in connections.drain(..) {
            connection.outbox().flush();
        }
        // Kept, so that the next turn allocates nothing.
        HELD.with_borrow_mut(|held| held.connections = connections);
    }
}
