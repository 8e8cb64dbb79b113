//! The names that this server has written in Redis.

use std::collections::HashMap;

use super::owned::OwnedName;

/// Whether a name is written in Redis; an absent name is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// It is unknown, or must be written in any case.
    Unknown,
}

/// The written names, and how many members of each room are certainly among them.
#[derive(Debug, Default)]
pub(super) struct WrittenNames {
    names: HashMap<OwnedName, Written>,
    certain: HashMap<Box<str>, usize>,
}

impl WrittenNames {
    pub(super) fn get(&self, name: &OwnedName) -> Option<Written> {
        self.names.get(name).copied()
    }

    pub(super) fn set(&mut self, name: OwnedName, written: Written) {
        let room = name.room_of_member().map(Box::from);
        let before = self.names.insert(name, written);
        if let Some(room) = room {
            self.count(room, before, Some(written));
        }
    }

    pub(super) fn remove(&mut self, name: &OwnedName) {
        let before = self.names.remove(name);
        if let Some(room) = name.room_of_member() {
            self.count(room.into(), before, None);
        }
    }

    /// Forgets for certain which of the names that `may_be_lost` are written, and returns them.
    pub(super) fn doubt(&mut self, may_be_lost: impl Fn(&OwnedName) -> bool) -> Vec<OwnedName> {
        let lost = self.names.keys().filter(|name| may_be_lost(name));
        let lost: Vec<OwnedName> = lost.cloned().collect();
        for name in &lost {
            self.set(name.clone(), Written::Unknown);
        }
        lost
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = OwnedName> {
        self.certain.clear();
        self.names.drain().map(|(name, _)| name)
    }

    /// How many members of `room` are written, at least.
    pub(super) fn members(&self, room: &str) -> usize {
        self.certain.get(room).copied().unwrap_or_default()
    }

    fn count(&mut self, room: Box<str>, before: Option<Written>, now: Option<Written>) {
        let is_yes = |written| written == Some(Written::Yes);
        match (is_yes(before), is_yes(now)) {
            (false, true) => *self.certain.entry(room).or_default() += 1,
            (true, false) => {
                if let Some(count) = self.certain.get_mut(&room) {
                    *count -= 1;
                    if *count == 0 {
                        self.certain.remove(&room);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_that_are_certainly_written_are_counted() {
        let mut written = WrittenNames::default();
        let [ann, bob] = ["ann", "bob"].map(|user| OwnedName::member("r", user));
        written.set(OwnedName::Room("r".into()), Written::Yes);
        written.set(OwnedName::member("other", "ann"), Written::Yes);
        assert_eq!(written.members("r"), 0);
        for _ in 0..2 {
            written.set(ann.clone(), Written::Yes);
            written.set(bob.clone(), Written::Unknown);
            assert_eq!(written.members("r"), 1);
        }
        written.set(bob.clone(), Written::Yes);
        assert_eq!(written.members("r"), 2);
        written.remove(&ann);
        written.remove(&ann);
        assert_eq!(written.members("r"), 1);
        let lost = written.doubt(|name| *name == bob);
        assert_eq!(lost, std::slice::from_ref(&bob));
        assert_eq!(
            (written.members("r"), written.get(&bob)),
            (0, Some(Written::Unknown))
        );
        written.remove(&bob);
        assert_eq!(written.members("r"), 0);
        assert_eq!(written.drain().count(), 2);
        assert_eq!(written.members("other"), 0);
    }
}
