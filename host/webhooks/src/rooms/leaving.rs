//! What left this node, and is reported unless it comes back in time.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::WatchedName;

/// The names that left, each with the time at which it is looked up.
#[derive(Default)]
pub(crate) struct LeavingNames {
    due: HashMap<WatchedName, Instant>,
    /// In the order in which they were added. Entries that do not agree with `due` are outdated.
    order: VecDeque<(Instant, WatchedName)>,
}

impl LeavingNames {
    /// Adds `name`, which is due at `at`; that replaces an earlier time.
    pub(crate) fn add(&mut self, name: WatchedName, at: Instant) {
        self.due.insert(name.clone(), at);
        self.order.push_back((at, name));
    }

    /// `name` is back.
    pub(crate) fn remove(&mut self, name: &WatchedName) {
        self.due.remove(name);
    }

    /// Removes and returns at most `max` of those that are due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant, max: usize) -> Vec<WatchedName> {
        let mut due = Vec::new();
        while due.len() < max
            && let Some((at, name)) = self.order.pop_front_if(|(at, _)| *at <= now)
        {
            if self.due.get(&name) == Some(&at) {
                self.due.remove(&name);
                due.push(name);
            }
        }
        due
    }

    /// When the next one is due, or an outdated entry can be removed.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.order.front().map(|(at, _)| *at)
    }

    /// Makes all of them due at `now`.
    pub(crate) fn hurry(&mut self, now: Instant) {
        let names: Vec<WatchedName> = self.due.drain().map(|(name, _)| name).collect();
        self.order.clear();
        for name in names {
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
