//! The gate of a version with a single instance: messages pass through it, except while the version's state is handed
//! over.
//!
//! A message may call a plugin several times, and all its calls must reach the same version. So the gate counts
//! messages, not calls, and is held for a handover until the messages inside have left.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

/// Messages may enter.
const OPEN: u8 = 0;
/// Messages wait outside.
const HELD: u8 = 1;
/// Another version serves: messages that arrive look that up.
const CLOSED: u8 = 2;

/// Counts the messages inside, and keeps new ones out while it is held.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU8,
    inside: AtomicUsize,
    /// Notified when the last message left while the gate was not open.
    emptied: Notify,
    /// Notified when the gate is no longer held.
    moved: Notify,
    /// Locked by the holder of the gate.
    turn: Arc<Mutex<()>>,
}

impl Gate {
    /// Enters if the gate is open. A caller that was let in must [leave](Self::leave).
    // Sequentially consistent, here and below: a message is counted before it reads the state, and the holder sets the
    // state before it reads the count, so that one of the two sees the other.
    pub fn enter(&self) -> bool {
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.state.load(Ordering::SeqCst) == OPEN {
            return true;
        }
        self.leave();
        false
    }

    /// Leaves the gate.
    pub fn leave(&self) {
        let last = self.inside.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.state.load(Ordering::SeqCst) != OPEN {
            self.emptied.notify_one();
        }
    }

    /// Waits until the gate is no longer held. Then it is open, or another version serves.
    pub async fn until_moved(&self) {
        loop {
            // Created before the check, so that a change after the check is not missed.
            let moved = self.moved.notified();
            if self.state.load(Ordering::SeqCst) != HELD {
                return;
            }
            moved.await;
        }
    }

    /// Holds the gate until the returned value is dropped. Waits until nobody else holds it: a swap and the probation
    /// may want it at the same time. `None` if another version serves by then.
    pub(super) async fn hold(self: &Arc<Self>) -> Option<HeldGate> {
        let turn = self.turn.clone().lock_owned().await;
        // Only the holder closes it.
        if self.state.load(Ordering::SeqCst) == CLOSED {
            return None;
        }
        self.state.store(HELD, Ordering::SeqCst);
        Some(HeldGate {
            gate: self.clone(),
            then: OPEN,
            _turn: turn,
        })
    }

    fn move_to(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
        self.moved.notify_waiters();
    }
}

/// A gate that is held. It opens again on drop, unless it was [closed](Self::close).
pub(super) struct HeldGate {
    gate: Arc<Gate>,
    /// The state of the gate once it is no longer held.
    then: u8,
    /// Released after the state of the gate has changed.
    _turn: OwnedMutexGuard<()>,
}

impl HeldGate {
    /// Waits until no message is inside.
    pub(super) async fn until_empty(&self) {
        while self.gate.inside.load(Ordering::SeqCst) > 0 {
            self.gate.emptied.notified().await;
        }
    }

    /// Sends waiting messages, and all later ones, to the version that serves now, once this value is dropped.
    pub(super) fn close(&mut self) {
        self.then = CLOSED;
    }
}

impl Drop for HeldGate {
    fn drop(&mut self) {
        self.gate.move_to(self.then);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures_util::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn a_held_gate_admits_no_message_and_waits_for_those_inside() {
        let gate = Arc::<Gate>::default();
        assert!(gate.enter() && gate.enter());
        let held = gate.hold().await.expect("it is open");
        assert!(!gate.enter());
        let mut empty = Box::pin(held.until_empty());
        assert!(poll!(&mut empty).is_pending());
        gate.leave();
        assert!(poll!(&mut empty).is_pending(), "one is inside yet");
        gate.leave();
        empty.await;
        let mut waiting = Box::pin(gate.until_moved());
        assert!(poll!(&mut waiting).is_pending());
        drop(held);
        waiting.await;
        assert!(gate.enter());
    }

    #[tokio::test]
    async fn a_closed_gate_admits_nothing_and_ends_all_waits() {
        let gate = Arc::<Gate>::default();
        let mut held = gate.hold().await.expect("it is open");
        held.until_empty().await;
        let mut waiting = Box::pin(gate.until_moved());
        assert!(poll!(&mut waiting).is_pending());
        held.close();
        drop(held);
        waiting.await;
        assert!(gate.until_moved().now_or_never().is_some());
        assert!(!gate.enter());
        assert!(gate.hold().await.is_none(), "it stays closed");
        assert!(!gate.enter());
    }

    #[tokio::test]
    async fn the_gate_has_one_holder_at_a_time_and_keeps_its_state() {
        let gate = Arc::<Gate>::default();
        let first = gate.hold().await.expect("it is open");
        let mut second = Box::pin(gate.hold());
        assert!(poll!(&mut second).is_pending());
        drop(first);
        let mut second = second.await.expect("it is open again");
        let mut third = Box::pin(gate.hold());
        assert!(poll!(&mut third).is_pending());
        second.close();
        drop(second);
        assert!(third.await.is_none(), "another version serves");
    }

    #[test]
    fn no_thread_is_inside_while_the_gate_is_held() {
        let gate = Arc::<Gate>::default();
        let exclusive = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut visits = 0;
                    while visits < 2_000 {
                        if gate.enter() {
                            assert!(!exclusive.load(Ordering::SeqCst));
                            visits += 1;
                            gate.leave();
                        } else {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            for _ in 0..500 {
                let held = runtime.block_on(gate.hold()).unwrap();
                runtime.block_on(held.until_empty());
                exclusive.store(true, Ordering::SeqCst);
                std::thread::yield_now();
                exclusive.store(false, Ordering::SeqCst);
                drop(held);
            }
        });
    }
}
