//! The warm instances of one version.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::instance::Instance;

/// Instances that wait for a call. The one used last is used next: its memory is in the caches.
pub(super) struct Pool {
    state: Mutex<State>,
    freed: Notify,
    max: usize,
}

// Boxed, because instances are large and move between here and their callers for every call.
#[allow(clippy::vec_box)]
struct State {
    idle: Vec<Box<Instance>>,
    /// Idle, lent, or being started.
    existing: usize,
}

/// What a caller gets.
pub(super) enum Place {
    /// An instance.
    Warm(Box<Instance>),
    /// The right to start one.
    Empty,
}

impl Pool {
    pub(super) fn new(max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                idle: Vec::new(),
                existing: 0,
            }),
            freed: Notify::new(),
            max,
        }
    }

    /// Waits for an instance, or for the right to start one. Every place is given back by [`Pool::give_back`] or
    /// [`Pool::give_up`].
    pub(super) async fn take(&self) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // Registered before the second look, so that what is freed in between is not missed.
            let freed = self.freed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(&self) -> Option<Place> {
        let mut state = self.state();
        if let Some(instance) = state.idle.pop() {
            return Some(Place::Warm(instance));
        }
        (state.existing < self.max).then(|| {
            state.existing += 1;
            Place::Empty
        })
    }

    /// The right to start an instance ahead of need, where fewer than `warm` exist.
    pub(super) fn take_for_refill(&self, warm: usize) -> bool {
        let mut state = self.state();
        let wanted = state.existing < warm.min(self.max);
        state.existing += usize::from(wanted);
        wanted
    }

    pub(super) fn give_back(&self, instance: Box<Instance>) {
        self.state().idle.push(instance);
        self.freed.notify_one();
    }

    pub(super) fn give_up(&self) {
        self.state().existing -= 1;
        self.freed.notify_one();
    }

    /// Idle instances, and all of them.
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.state();
        (state.idle.len(), state.existing)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
