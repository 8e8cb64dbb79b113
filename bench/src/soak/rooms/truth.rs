//! The messages of each room as members got them, and the faults that members found.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock;
use crate::soak::faults::Faults;

/// The place of a message.
type Place = (u64, String, u64);

/// What all members together know.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The text of each message, by room, epoch and number.
    messages: Mutex<HashMap<Place, String>>,
    /// The last place of each member.
    places: Mutex<HashMap<u64, Place>>,
    /// Texts whose sender was told that they were delivered or kept.
    acked: Mutex<HashSet<String>>,
    /// Gaps, repetitions, and anything else that must not happen.
    pub(super) faults: Faults,
    pub(super) delivered: AtomicU64,
    /// Reconnects with a place, and how they ended.
    pub(super) recovered: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Times that a connected member was told that it missed messages.
    pub(super) missed: AtomicU64,
}

impl Truth {
    /// Records that a member of `room` got this message.
    pub(super) fn came(&self, room: u64, epoch: &str, offset: u64, text: &str) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let place = (room, epoch.to_owned(), offset);
        let mut messages = lock(&self.messages);
        let known = messages.entry(place.clone());
        let known = known.or_insert_with(|| text.to_owned());
        if known != text {
            self.faults
                .add(format!("{place:?} is `{known}` and `{text}`"));
        }
    }

    /// Records the last place of a member.
    pub(super) fn is_at(&self, member: u64, room: u64, epoch: &str, offset: u64) {
        lock(&self.places).insert(member, (room, epoch.to_owned(), offset));
    }

    /// Records that the sender of `text` was told that it was delivered or kept.
    pub(super) fn acked(&self, text: String) {
        lock(&self.acked).insert(text);
    }

    /// Prints the figures, and returns whether all is well. `members` is their number.
    pub(super) fn report(&self, members: u64, failures: &str) -> bool {
        self.compare_places(members);
        self.compare_texts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!("\n{failures}");
        println!("  {} deliveries", count(&self.delivered));
        let (acked, lost) = self.acked_and_lost();
        println!("  {acked} messages were acked; {lost} of them went with the data of Redis");
        println!("  {} recoveries, complete", count(&self.recovered));
        println!("  {} recoveries, refused", count(&self.refused));
        let missed = count(&self.missed);
        println!("  {missed} times a member was told that it missed messages");
        let faults = self.faults.count();
        println!("  {faults} gaps, repetitions, reorderings and contradictions");
        for fault in self.faults.first() {
            println!("    {fault}");
        }
        let is_well = faults == 0 && count(&self.delivered) > 0;
        println!("the soak {}", if is_well { "passed" } else { "failed" });
        is_well
    }

    /// The number of acked messages, and of those that no member got.
    fn acked_and_lost(&self) -> (usize, usize) {
        let messages = lock(&self.messages);
        let came: HashSet<&String> = messages.values().collect();
        let acked = lock(&self.acked);
        let lost = acked.iter().filter(|text| !came.contains(text)).count();
        (acked.len(), lost)
    }

    /// At the end, all members of a room are at the same place.
    fn compare_places(&self, members: u64) {
        let places = lock(&self.places).clone();
        let known = places.len() as u64;
        if known != members {
            self.faults
                .add(format!("{known} of {members} members have a place"));
        }
        let mut rooms: HashMap<u64, HashSet<(String, u64)>> = HashMap::new();
        for (room, epoch, offset) in places.into_values() {
            rooms.entry(room).or_default().insert((epoch, offset));
        }
        for (room, ends) in rooms {
            if ends.len() > 1 {
                self.faults
                    .add(format!("the members of room {room} are at {ends:?}"));
            }
        }
    }

    /// No text has two numbers.
    fn compare_texts(&self) {
        let mut numbers: HashMap<String, Place> = HashMap::new();
        let messages = lock(&self.messages).clone();
        for (place, text) in messages {
            if let Some(other) = numbers.insert(text.clone(), place.clone()) {
                self.faults
                    .add(format!("`{text}` is at {other:?} and {place:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_got_the_same_are_well() {
        let truth = Truth::default();
        for member in 0..2 {
            truth.came(1, "e", 1, "a");
            truth.came(1, "e", 2, "b");
            truth.came(2, "e", 1, "c");
            truth.is_at(member, 1, "e", 2);
        }
        assert!(truth.report(2, ""));
    }

    #[test]
    fn contradictions_are_found() {
        let truth = Truth::default();
        truth.came(1, "e", 1, "a");
        truth.came(1, "e", 1, "b");
        assert_eq!(truth.faults.count(), 1);
        truth.came(1, "e", 2, "a");
        truth.is_at(0, 1, "e", 1);
        truth.is_at(1, 1, "e", 2);
        assert!(!truth.report(3, ""));
        // A text with two numbers, a member without a place, and different ends.
        assert_eq!(truth.faults.count(), 4);
    }
}
