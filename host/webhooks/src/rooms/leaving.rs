//! Rooms and members that left this node, and are reported unless they come back in time.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::WatchedName;

/// A place in the order of [`LeavingNames`]: a time, and a number that tells equal times apart.
type Place = (Instant, u64);

/// The names that left, each with the time at which it is looked up.
#[derive(Default)]
pub(crate) struct LeavingNames {
    places: HashMap<WatchedName, Place>,
    order: BTreeMap<Place, WatchedName>,
    added: u64,
}

impl LeavingNames {
    /// Adds `name`, which is due at `at`; that replaces an earlier time.
    pub(crate) fn add(&mut self, name: WatchedName, at: Instant) {
        self.remove(&name);
        self.added += 1;
        let place = (at, self.added);
        self.places.insert(name.clone(), place);
        self.order.insert(place, name);
    }

    /// `name` is back.
    pub(crate) fn remove(&mut self, name: &WatchedName) {
        if let Some(place) = self.places.remove(name) {
            self.order.remove(&place);
        }
    }

    /// Removes and returns at most `max` of those that are due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant, max: usize) -> Vec<WatchedName> {
        let mut due = Vec::new();
        while due.len() < max && self.next_due().is_some_and(|at| at <= now) {
            if let Some((_, name)) = self.order.pop_first() {
                self.places.remove(&name);
                due.push(name);
            }
        }
        due
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((at, _), _)| *at)
    }

    /// Makes all of them due at `now`.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.places.clear();
        for (_, name) in std::mem::take(&mut self.order) {
            self.add(name, now);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_is_due_at_its_last_time_unless_it_came_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let name = |name: &str| WatchedName::Room(name.into());
        let mut leaving = LeavingNames::default();
        leaving.add(name("a"), at(1));
        leaving.add(name("b"), at(1));
        leaving.add(name("c"), at(2));
        leaving.add(name("a"), at(3));
        // Added last, and due first.
        leaving.add(name("e"), at(0));
        assert_eq!(leaving.take_due(at(0), 9), [name("e")]);
        leaving.remove(&name("b"));
        assert_eq!(leaving.take_due(at(0), 9), []);
        assert_eq!(leaving.take_due(at(2), 9), [name("c")]);
        assert_eq!(leaving.next_due(), Some(at(3)));
        leaving.add(name("d"), at(9));
        leaving.hurry(at(2));
        let mut all = leaving.take_due(at(2), 1);
        all.extend(leaving.take_due(at(2), 9));
        assert_eq!(all.len(), 2);
        assert_eq!(leaving.next_due(), None);
    }
}
