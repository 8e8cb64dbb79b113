//! The warm instances of one version.

use std::{
    array,
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use signalbox_telemetry::thread_number;
use tokio::sync::oneshot;

/// Shelves for idle instances. If there are more threads than shelves, threads share them.
const SHELVES: usize = 8;

/// Callers that may wait in line: as many as one instance can serve in the time that a call may wait.
const LINE_MAX: usize = 16_384;
/// The line's length from which callers that gave up are removed from it.
const TIDY_FROM: usize = 64;

/// Instances that wait for a call. Each thread has a shelf and first uses the instance that it put there last: that
/// instance's memory is in the caches of the thread's processor. If its own shelf is empty, it takes from the others.
///
/// Callers that find no instance wait in line, and later callers cannot overtake them: with a single instance, calls
/// run in order.
pub(super) struct Pool<I> {
    shelves: [IdleShard<I>; SHELVES],
    /// The length of `state.waiting`, readable without its lock.
    waiting: AtomicUsize,
    state: Mutex<PoolState<I>>,
    max: usize,
}

/// On its own cache line, to avoid false sharing between threads.
#[repr(align(64))]
struct IdleShard<I>(Mutex<Idle<I>>);

/// The instances of a shelf, last in, first out.
struct Idle<I> {
    instances: Vec<I>,
    /// How many instances, counted from the first, were not taken since the last call of `look`.
    untouched: usize,
}

struct PoolState<I> {
    /// Instances that are idle, lent, or being started.
    existing: usize,
    waiting: VecDeque<oneshot::Sender<Checkout<I>>>,
    /// The line's length at which it is next tidied.
    tidy_at: usize,
}

/// The result of [`Pool::take`].
pub(super) enum Checkout<I> {
    /// An instance.
    Warm(I),
    /// The right to start one.
    Empty,
    /// Nothing: too many callers wait already.
    Refused,
}

impl<I> Pool<I> {
    pub(super) fn new(max: usize) -> Self {
        let state = PoolState {
            existing: 0,
            waiting: VecDeque::new(),
            tidy_at: TIDY_FROM,
        };
        let idle = || Idle {
            instances: Vec::new(),
            untouched: 0,
        };
        Self {
            shelves: array::from_fn(|_| IdleShard(Mutex::new(idle()))),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(state),
            max,
        }
    }

    /// Waits for an instance or for the right to start one, unless the line is full. The caller must give either back
    /// with [`Pool::give_back`] or [`Pool::give_up`].
    pub(super) async fn take(&self) -> Checkout<I> {
        match self.take_or_queue() {
            Ok(place) => place,
            // The sender stays in the queue until it sends.
            Err(mut waiting) => (&mut waiting.receiver).await.unwrap_or(Checkout::Empty),
        }
    }

    /// Takes an idle instance. Returns `None` if there is none, or if other callers wait for one.
    pub(super) fn take_now(&self) -> Option<I> {
        if self.anybody_waits() {
            return None;
        }
        self.take_idle()
    }

    fn take_or_queue(&self) -> Result<Checkout<I>, Waiter<'_, I>> {
        if let Some(instance) = self.take_now() {
            return Ok(Checkout::Warm(instance));
        }
        let mut state = self.state();
        if state.existing < self.max {
            state.existing += 1;
            return Ok(Checkout::Empty);
        }
        if state.is_line_full() {
            return Ok(Checkout::Refused);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        self.count_waiting(&state);
        // A thread that put an instance on a shelf before the line above did not see this caller.
        self.serve_line(&mut state);
        let pool = self;
        Err(Waiter { pool, receiver })
    }

    /// Claims the right to start an instance ahead of need. Returns whether the caller got it: only if fewer than
    /// `warm` instances exist.
    pub(super) fn take_for_refill(&self, warm: usize) -> bool {
        let mut state = self.state();
        let wanted = state.existing < warm.min(self.max);
        state.existing += usize::from(wanted);
        wanted
    }

    /// Gives an instance back; the first caller in line gets it, if there is one.
    pub(super) fn give_back(&self, instance: I) {
        let mut shelf = self.shelf(shelf_of_this_thread());
        shelf.instances.push(instance);
        drop(shelf);
        if self.anybody_waits() {
            self.serve_line(&mut self.state());
        }
    }

    /// Reports that an instance is gone, or that it could not be started.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        if state.hand_over(Checkout::Empty).is_some() {
            state.existing -= 1;
        }
        self.count_waiting(&state);
    }

    /// Removes and returns idle instances that were not used since the last call. At least `min` instances remain,
    /// including lent ones.
    pub(super) fn shrink(&self, min: usize) -> Vec<I> {
        let mut state = self.state();
        let mut gone = Vec::new();
        for index in 0..SHELVES {
            let most = (state.existing - gone.len()).saturating_sub(min);
            gone.extend(self.shelf(index).look(most));
        }
        state.existing -= gone.len();
        gone
    }

    /// The number of idle instances, and of all instances.
    pub(super) fn size(&self) -> (usize, usize) {
        let idle = (0..SHELVES)
            .map(|index| self.shelf(index).instances.len())
            .sum();
        (idle, self.state().existing)
    }

    /// Gives idle instances to waiting callers, in order.
    fn serve_line(&self, state: &mut PoolState<I>) {
        while !state.waiting.is_empty()
            && let Some(instance) = self.take_idle()
        {
            if let Some(Checkout::Warm(instance)) = state.hand_over(Checkout::Warm(instance)) {
                let mut shelf = self.shelf(shelf_of_this_thread());
                shelf.instances.push(instance);
            }
        }
        self.count_waiting(state);
    }

    /// Takes an instance from this thread's shelf, or from the next shelf that has one.
    fn take_idle(&self) -> Option<I> {
        let mine = shelf_of_this_thread();
        (0..SHELVES).find_map(|step| self.shelf((mine + step) % SHELVES).pop())
    }

    // Sequentially consistent, here and below: a thread that puts an instance on a shelf checks the line afterwards,
    // and a caller that joins the line checks the shelves afterwards, so that one of the two sees the other.
    fn anybody_waits(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn count_waiting(&self, state: &PoolState<I>) {
        self.waiting.store(state.waiting.len(), Ordering::SeqCst);
    }

    fn shelf(&self, index: usize) -> MutexGuard<'_, Idle<I>> {
        let shelf = self.shelves[index].0.lock();
        shelf.unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, PoolState<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Idle<I> {
    fn pop(&mut self) -> Option<I> {
        let instance = self.instances.pop()?;
        self.untouched = self.untouched.min(self.instances.len());
        Some(instance)
    }

    /// Removes at most `most` instances that were not used since the last call.
    fn look(&mut self, most: usize) -> Vec<I> {
        let gone = self.instances.drain(..self.untouched.min(most)).collect();
        self.untouched = self.instances.len();
        gone
    }
}

impl<I> PoolState<I> {
    /// Returns whether the line is full. Callers that gave up leave their senders behind. These are removed only from
    /// time to time, so that callers that join a long line do not each have to walk along it.
    fn is_line_full(&mut self) -> bool {
        if self.waiting.len() >= self.tidy_at {
            self.waiting.retain(|sender| !sender.is_closed());
            self.tidy_at = (self.waiting.len() * 2).clamp(TIDY_FROM, LINE_MAX);
        }
        self.waiting.len() >= LINE_MAX
    }

    /// Gives `place` to the first caller that still waits. Returns it if nobody does.
    fn hand_over(&mut self, mut place: Checkout<I>) -> Option<Checkout<I>> {
        while let Some(first) = self.waiting.pop_front() {
            match first.send(place) {
                Ok(()) => return None,
                Err(unwanted) => place = unwanted,
            }
        }
        Some(place)
    }
}

fn shelf_of_this_thread() -> usize {
    thread_number() % SHELVES
}

/// A caller in line. If it goes away just after it got a place, the place passes to the next caller.
struct Waiter<'p, I> {
    pool: &'p Pool<I>,
    receiver: oneshot::Receiver<Checkout<I>>,
}

impl<I> Drop for Waiter<'_, I> {
    fn drop(&mut self) {
        self.receiver.close();
        match self.receiver.try_recv() {
            Ok(Checkout::Warm(instance)) => self.pool.give_back(instance),
            Ok(Checkout::Empty) => self.pool.give_up(),
            Ok(Checkout::Refused) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
