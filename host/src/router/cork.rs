//! Writing what one turn of a task sends at the end of the turn, all at once.
//!
//! A session that reads ten messages to the same client in one turn must not write ten times. While a task is
//! [`corked`] the connections that it pushes to are held, and flushed when its turn ends: when it waits for something,
//! or is done. Who is not corked wakes the receiver's session instead.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::Connection;

/// Connections that one turn writes to itself. Those beyond are written to by their own sessions, on all threads: a
/// message to a large room is not one thread's work.
const HELD_MAX: usize = 16;

thread_local! {
    static HELD: RefCell<Held> = const {
        RefCell::new(Held { corked: false, connections: Vec::new() })
    };
}

/// What the turn that runs on this thread has pushed to.
struct Held {
    /// Whether a turn will end.
    corked: bool,
    connections: Vec<Arc<Connection>>,
}

pin_project! {
    /// A future whose turns write at their end what they have pushed. No async function, which would keep room for the
    /// future twice.
    pub struct Corked<F> {
        #[pin]
        future: F,
    }
}

/// Corks `future`.
pub fn corked<F: Future>(future: F) -> Corked<F> {
    Corked { future }
}

impl<F: Future> Future for Corked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _cork = Cork::put_in();
        self.project().future.poll(cx)
    }
}

/// Holds `connection` until the turn ends. False where it is not held: its session must be woken.
pub(super) fn hold(connection: &Arc<Connection>) -> bool {
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

/// Ends the turn when it is dropped, also by a panic.
struct Cork;

impl Cork {
    fn put_in() -> Self {
        HELD.with_borrow_mut(|held| held.corked = true);
        Self
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        let mut connections = HELD.with_borrow_mut(|held| {
            held.corked = false;
            std::mem::take(&mut held.connections)
        });
        for connection in connections.drain(..) {
            connection.outbox().flush();
        }
        // Kept for the next turn, which then allocates nothing.
        HELD.with_borrow_mut(|held| held.connections = connections);
    }
}
