//! The warm instances of one version.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Instances that wait for a call. The one used last is used next: its memory is in the caches.
///
/// Callers that find none wait in line, and nobody who comes later goes before them: with one instance, calls are in
/// order.
pub(super) struct Pool<I> {
    state: Mutex<State<I>>,
    max: usize,
}

struct State<I> {
    idle: Vec<I>,
    /// Idle, lent, or being started.
    existing: usize,
    waiting: VecDeque<oneshot::Sender<Place<I>>>,
}

/// What a caller gets.
pub(super) enum Place<I> {
    /// An instance.
    Warm(I),
    /// The right to start one.
    Empty,
}

impl<I> Pool<I> {
    pub(super) fn new(max: usize) -> Self {
        let state = State {
            idle: Vec::new(),
            existing: 0,
            waiting: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            max,
        }
    }

    /// Waits for an instance, or for the right to start one. Every place is given back by [`Pool::give_back`] or
    /// [`Pool::give_up`].
    pub(super) async fn take(&self) -> Place<I> {
        match self.take_or_queue() {
            Ok(place) => place,
            // The sender stays in the queue until it sends.
            Err(mut waiting) => (&mut waiting.receiver).await.unwrap_or(Place::Empty),
        }
    }

    fn take_or_queue(&self) -> Result<Place<I>, Waiting<'_, I>> {
        let mut state = self.state();
        if let Some(instance) = state.idle.pop() {
            return Ok(Place::Warm(instance));
        }
        if state.existing < self.max {
            state.existing += 1;
            return Ok(Place::Empty);
        }
        let (sender, receiver) = oneshot::channel();
        // Callers that gave up waiting leave their senders behind.
        state.waiting.retain(|sender| !sender.is_closed());
        state.waiting.push_back(sender);
        let pool = self;
        Err(Waiting { pool, receiver })
    }

    /// The right to start an instance ahead of need, where fewer than `warm` exist.
    pub(super) fn take_for_refill(&self, warm: usize) -> bool {
        let mut state = self.state();
        let wanted = state.existing < warm.min(self.max);
        state.existing += usize::from(wanted);
        wanted
    }

    /// Hands an instance on, to the first in line where there is one.
    pub(super) fn give_back(&self, instance: I) {
        let mut state = self.state();
        if let Some(Place::Warm(instance)) = state.hand_over(Place::Warm(instance)) {
            state.idle.push(instance);
        }
    }

    /// Says that an instance, or one that was to be started, is no more.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        if state.hand_over(Place::Empty).is_some() {
            state.existing -= 1;
        }
    }

    /// Idle instances, and all of them.
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.state();
        (state.idle.len(), state.existing)
    }

    fn state(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> State<I> {
    /// Gives `place` to the first that still waits; back where nobody does.
    fn hand_over(&mut self, mut place: Place<I>) -> Option<Place<I>> {
        while let Some(first) = self.waiting.pop_front() {
            match first.send(place) {
                Ok(()) => return None,
                Err(unwanted) => place = unwanted,
            }
        }
        Some(place)
    }
}

/// A caller in line. What it was given in the moment it went away goes to the next.
struct Waiting<'p, I> {
    pool: &'p Pool<I>,
    receiver: oneshot::Receiver<Place<I>>,
}

impl<I> Drop for Waiting<'_, I> {
    fn drop(&mut self) {
        self.receiver.close();
        match self.receiver.try_recv() {
            Ok(Place::Warm(instance)) => self.pool.give_back(instance),
            Ok(Place::Empty) => self.pool.give_up(),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    fn warm(place: Option<Place<u32>>) -> Option<u32> {
        match place {
            Some(Place::Warm(instance)) => Some(instance),
            Some(Place::Empty) => Some(0),
            None => None,
        }
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_nobody_overtakes_them() {
        let pool = Pool::new(1);
        assert_eq!(warm(pool.take_or_queue().ok()), Some(0));
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(pool.take())).collect();
        for caller in &mut waiting {
            assert!(poll(caller).is_none());
        }
        pool.give_back(7);
        assert!(
            pool.take_or_queue().is_err(),
            "it is the first one's already"
        );
        assert_eq!(warm(poll(&mut waiting[0])), Some(7));
        assert!(poll(&mut waiting[1]).is_none());
        // The instance failed: the next may start another.
        pool.give_up();
        assert_eq!(warm(poll(&mut waiting[1])), Some(0));
        pool.give_back(8);
        assert_eq!(warm(poll(&mut waiting[2])), Some(8));
        assert_eq!(pool.size(), (0, 1));
    }

    #[test]
    fn a_caller_that_goes_away_costs_no_place() {
        let pool = Pool::new(1);
        assert_eq!(warm(pool.take_or_queue().ok()), Some(0));
        let mut first = Box::pin(pool.take());
        let mut second = Box::pin(pool.take());
        let mut third = Box::pin(pool.take());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        assert!(poll(&mut third).is_none());
        // Gone before its turn, and gone in its turn.
        drop(first);
        pool.give_back(7);
        drop(second);
        assert_eq!(warm(poll(&mut third)), Some(7));
        pool.give_back(7);
        assert_eq!(pool.size(), (1, 1));
    }

    #[test]
    fn no_more_instances_exist_than_may() {
        let pool = Pool::<u32>::new(3);
        assert!(pool.take_for_refill(2) && pool.take_for_refill(2));
        assert!(!pool.take_for_refill(2), "two are warm");
        assert!(pool.take_or_queue().is_ok());
        assert!(pool.take_or_queue().is_err(), "three exist");
        pool.give_up();
        assert_eq!(pool.size(), (0, 2));
    }
}
