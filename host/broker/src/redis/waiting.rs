//! The order of one user's messages on this node: those in the queue, and forwarded ones that have not arrived yet.
//!
//! A message never overtakes an earlier one. This node numbers every message that it forwards. A message that returns goes
//! before all later ones in the queue, and waits only for messages with smaller numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use signalbox_protocol::{Frame, Position};
use tokio::{sync::oneshot, time::Instant};

use super::{keys::ServerId, marks::Trail};

/// How long a message waits for a user who is on no node.
pub(super) const HOLD: Duration = Duration::from_secs(5);

/// Charged for each message in addition to its bytes.
const OVERHEAD_BYTES: usize = 128;

/// The most forwarded messages that are tracked for one user; beyond it the oldest counts as arrived.
const UNDER_WAY_MAX: usize = 4_096;

/// A message for one user.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    /// The frame for the clients.
    pub(super) frame: Frame,
    /// How often it was forwarded.
    pub(super) hops: u8,
    /// Its identity, made by [`super::deduplicator::identity`]; `None`: that of the frame.
    pub(super) identity: Option<u64>,
    pub(super) trail: Trail,
    /// Its place in the user's history; `None` if it is not part of it. Then it is lost if it is dropped.
    pub(super) at: Option<Position>,
}

/// A [`Parcel`] in the queue.
#[derive(Clone, Debug)]
pub(super) struct QueuedParcel {
    pub(super) parcel: Parcel,
    /// When it is dropped.
    pub(super) until: Instant,
    /// The number with which this node forwarded it; `None` if it did not.
    pub(super) number: Option<u64>,
    /// Identifies it in the queue.
    id: u64,
}

#[derive(Default)]
pub(super) struct WaitingQueue {
    queue: VecDeque<QueuedParcel>,
    next_id: u64,
    bytes: usize,
    under_way: BTreeMap<u64, InFlight>,
    /// Callers that wait until the queue is empty and everything has arrived. They are woken by dropping the senders.
    pub(super) fences: Vec<oneshot::Sender<()>>,
}

/// A message that was forwarded.
struct InFlight {
    /// The servers that it was last forwarded to, sorted.
    to: Vec<ServerId>,
    /// The number of them that have not reported its arrival yet.
    left: usize,
    /// When it counts as arrived without a report.
    until: Instant,
}

impl Parcel {
    /// The bytes that it counts for.
    pub(super) fn charge(&self) -> usize {
        self.frame.len() + OVERHEAD_BYTES
    }
}

impl WaitingQueue {
    /// The bytes in the queue.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of messages in the queue that no history contains.
    pub(super) fn perishable(&self) -> usize {
        let queue = self.queue.iter();
        queue.filter(|queued| queued.parcel.at.is_none()).count()
    }

    /// Whether a later message may be handed out at once.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    /// Queues a message after all earlier ones. `number`: the number with which this node forwarded it earlier.
    pub(super) fn push(&mut self, parcel: Parcel, number: Option<u64>, until: Instant) {
        self.bytes += parcel.charge();
        let order = order(number);
        let later = |queued: &QueuedParcel| self::order(queued.number) > order;
        let place = self.queue.iter().position(later);
        let queued = QueuedParcel {
            parcel,
            until,
            number,
            id: self.next_id,
        };
        self.next_id += 1;
        self.queue.insert(place.unwrap_or(self.queue.len()), queued);
    }

    pub(super) fn front(&self) -> Option<&QueuedParcel> {
        self.queue.front()
    }

    /// Removes a message from the queue, and returns the bytes that it counted for.
    pub(super) fn remove(&mut self, queued: &QueuedParcel) -> usize {
        // It is the first one, unless another returned meanwhile.
        let place = self.queue.iter().position(|other| other.id == queued.id);
        let removed = place.and_then(|place| self.queue.remove(place));
        let bytes = removed.map_or(0, |removed| removed.parcel.charge());
        self.bytes -= bytes;
        bytes
    }

    /// When to try again if `queued` must still wait for earlier messages. `to`: the servers that it would go to, sorted; empty:
    /// it would be delivered here.
    ///
    /// It need not wait for earlier messages that went to the same servers: those servers keep the order themselves.
    pub(super) fn blocked(&self, queued: &QueuedParcel, to: &[ServerId]) -> Option<Instant> {
        let now = Instant::now();
        let earlier = self.under_way.range(..order(queued.number));
        let others = earlier.filter(|(_, message)| message.until > now && message.to != to);
        others.map(|(_, message)| message.until).min()
    }

    /// Notes that message `number` is forwarded to the servers `to`, of which `reporting` many will report its arrival.
    pub(super) fn forwarded(
        &mut self,
        number: u64,
        to: Vec<ServerId>,
        reporting: usize,
        until: Instant,
    ) {
        // One that returned is no longer at one of the servers that it went to before.
        let before = self.under_way.remove(&number);
        let left = before.map_or(0, |before| before.left.saturating_sub(1)) + reporting;
        if left == 0 {
            return;
        }
        if self.under_way.len() >= UNDER_WAY_MAX {
            self.under_way.pop_first();
        }
        self.under_way.insert(number, InFlight { to, left, until });
    }

    /// One of the servers with message `number` delivered or dropped it.
    pub(super) fn arrived(&mut self, number: u64) {
        if let Some(message) = self.under_way.get_mut(&number) {
            message.left -= 1;
            if message.left == 0 {
                self.under_way.remove(&number);
            }
        }
    }

    /// Counts all forwarded messages as arrived.
    pub(super) fn forget_under_way(&mut self) {
        self.under_way.clear();
    }

    /// Forgets forwarded messages that count as arrived.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        self.under_way.retain(|_, message| message.until > now);
    }
}

/// Messages that this node did not forward come after all that it forwarded.
fn order(number: Option<u64>) -> u64 {
    number.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn push(waiting: &mut WaitingQueue, text: &str, number: Option<u64>) {
        let parcel = Parcel {
            frame: text.to_owned().into(),
            hops: 0,
            identity: None,
            trail: Trail::default(),
            at: None,
        };
        waiting.push(parcel, number, soon());
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn servers(ids: &[&str]) -> Vec<ServerId> {
        ids.iter().map(|id| ServerId::from(*id)).collect()
    }

    fn texts(waiting: &WaitingQueue) -> Vec<&str> {
        let queue = waiting.queue.iter();
        queue.map(|queued| queued.parcel.frame.as_str()).collect()
    }

    #[test]
    fn messages_that_return_are_put_before_those_that_came_after_them() {
        let mut waiting = WaitingQueue::default();
        push(&mut waiting, "new 1", None);
        push(&mut waiting, "returned 7", Some(7));
        push(&mut waiting, "new 2", None);
        push(&mut waiting, "returned 8", Some(8));
        push(&mut waiting, "returned 5", Some(5));
        let order = ["returned 5", "returned 7", "returned 8", "new 1", "new 2"];
        assert_eq!(texts(&waiting), order);
        let second = waiting.queue[1].clone();
        waiting.remove(&second);
        waiting.remove(&second);
        assert_eq!(
            texts(&waiting),
            ["returned 5", "returned 8", "new 1", "new 2"]
        );
        let charges = waiting.queue.iter().map(|queued| queued.parcel.charge());
        assert_eq!(waiting.bytes(), charges.sum::<usize>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_goes_elsewhere_only_when_those_before_it_have_arrived() {
        let mut waiting = WaitingQueue::default();
        let (b, c) = (servers(&["b"]), servers(&["c"]));
        waiting.forwarded(3, b.clone(), 1, soon());
        push(&mut waiting, "new", None);
        push(&mut waiting, "returned", Some(3));
        let [returned, new] = [0, 1].map(|place| waiting.queue[place].clone());
        assert_eq!(waiting.blocked(&returned, &c), None, "it is the first");
        assert_eq!(waiting.blocked(&new, &b), None, "it goes the same way");
        assert_eq!(waiting.blocked(&new, &c), Some(soon()));
        assert_eq!(waiting.blocked(&new, &[]), Some(soon()));
        waiting.arrived(3);
        assert_eq!(waiting.blocked(&new, &[]), None);
        waiting.forwarded(4, b, 1, soon());
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(waiting.blocked(&new, &c), None, "it counts as arrived");
        waiting.sweep();
        for queued in [new, returned] {
            assert!(!waiting.is_over());
            waiting.remove(&queued);
        }
        assert!(waiting.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_to_two_servers_has_arrived_when_both_have_said_so() {
        let mut waiting = WaitingQueue::default();
        waiting.forwarded(1, servers(&["b", "c"]), 2, soon());
        waiting.arrived(1);
        // The other one sent it back, and from here it goes on.
        waiting.forwarded(1, servers(&["d"]), 1, soon());
        assert!(!waiting.is_over());
        waiting.arrived(1);
        assert!(waiting.is_over());
        waiting.arrived(1);
        waiting.forwarded(2, servers(&["a server that does not tell"]), 0, soon());
        assert!(waiting.is_over());
    }

    #[test]
    fn forwarded_messages_are_bounded() {
        let mut waiting = WaitingQueue::default();
        for number in 0..=UNDER_WAY_MAX as u64 {
            waiting.forwarded(number, servers(&["b"]), 1, soon());
        }
        assert_eq!(waiting.under_way.len(), UNDER_WAY_MAX);
        assert!(!waiting.under_way.contains_key(&0));
    }
}
