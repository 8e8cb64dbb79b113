//! Limits the number of sockets of one listener that are not WebSockets.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::watch::HttpWatch;

/// The sockets that are not WebSockets.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<PendingState>);

#[derive(Debug, Default)]
struct PendingState {
    sockets: HashMap<u64, Arc<HttpWatch>>,
    last: u64,
}

/// The place of one socket, held until the socket is closed or becomes a WebSocket.
#[derive(Debug)]
pub(super) struct Ticket {
    pending: Arc<Pending>,
    number: u64,
    watch: Arc<HttpWatch>,
}

/// How a socket got its place.
#[derive(Debug)]
pub(super) enum TicketOutcome {
    /// There was room.
    Free(Ticket),
    /// The socket that had been silent longest was closed to make room.
    Instead(Ticket),
}

impl Pending {
    /// Takes a place for a new socket, with at most `max` of them. If no place is free, closes the socket that has been
    /// silent longest. Returns `None` if all sockets are being served.
    pub(super) fn admit(self: &Arc<Self>, max: usize) -> Option<TicketOutcome> {
        let mut state = self.state();
        let mut evicted = false;
        while state.sockets.len() >= max {
            let silent = state.sockets.iter();
            let (_, number) = silent
                .filter_map(|(number, watch)| Some((watch.silent_since()?, *number)))
                .min()?;
            if let Some(watch) = state.sockets.remove(&number) {
                watch.evict();
                evicted = true;
            }
        }
        state.last += 1;
        let number = state.last;
        let watch = Arc::new(HttpWatch::new());
        state.sockets.insert(number, watch.clone());
        let ticket = Ticket {
            pending: self.clone(),
            number,
            watch,
        };
        Some(if evicted {
            TicketOutcome::Instead(ticket)
        } else {
            TicketOutcome::Free(ticket)
        })
    }

    fn state(&self) -> MutexGuard<'_, PendingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    pub(super) fn watch(&self) -> &Arc<HttpWatch> {
        &self.watch
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.state().sockets.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(admitted: Option<TicketOutcome>) -> Ticket {
        match admitted.expect("there is a place") {
            TicketOutcome::Free(ticket) | TicketOutcome::Instead(ticket) => ticket,
        }
    }

    #[tokio::test]
    async fn the_socket_that_has_been_silent_longest_makes_room() {
        let pending = Arc::<Pending>::default();
        let first = ticket(pending.admit(2));
        let second = ticket(pending.admit(2));
        // It is being served, so the second socket has been silent longest.
        first.watch().asked(false);
        let third = pending.admit(2);
        assert!(matches!(third, Some(TicketOutcome::Instead(_))));
        second.watch().asked(false);
        let third = ticket(third);
        third.watch().asked(false);
        assert!(pending.admit(2).is_none(), "all are served");
        drop(first);
        assert!(matches!(pending.admit(2), Some(TicketOutcome::Free(_))));
        assert_eq!(pending.state().sockets.len(), 1, "places are given back");
    }
}
