//! Test doubles of the server's functions for native builds, in which the functions of the bindings would end the
//! process. The doubles have the same names and types, and each thread has its own store and client.

use std::{
    cell::RefCell,
    collections::{BTreeMap, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{Client, bindings::imports::signalbox::plugin as real, testing::Room};

/// The default of `store_value_bytes_max`.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// The default of `store_key_bytes_max`.
const KEY_BYTES_MAX: usize = 512;

/// The default of `limits.history_replay_max`.
const REPLAY_MAX: usize = 300;
/// The most bytes in the name of a room.
const ROOM_NAME_BYTES_MAX: usize = 255;

thread_local! {
    static CLIENT: RefCell<Option<Client>> = const { RefCell::new(None) };
    static VALUES: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    static ROOMS: RefCell<BTreeMap<String, Room>> = const { RefCell::new(BTreeMap::new()) };
}

pub(crate) fn set_client(client: Option<Client>) {
    CLIENT.with(|place| *place.borrow_mut() = client);
}

pub(crate) fn set_room(name: &str, room: Room) {
    ROOMS.with(|rooms| rooms.borrow_mut().insert(name.to_owned(), room));
}

/// Lines in the server's log, marked with the plugin's name and version. In tests, they go to standard error.
pub mod log {
    pub use super::real::log::Level;

    /// Writes a line. The server cuts it after 1 KiB, and drops lines beyond `log_lines_per_second` (100).
    pub fn write(level: Level, line: &str) {
        eprintln!("{level:?} {line}");
    }
}

/// The context of a call.
pub mod context {
    use super::{BuildHasher, CLIENT, Client, Hasher, RandomState, SystemTime, UNIX_EPOCH};

    /// The connection that this call is about; `None` in `init`, `event-types` and `self-test`. In tests, it is
    /// the client that [`testing::set_client`](crate::testing::set_client) has set.
    pub fn current_client() -> Option<Client> {
        CLIENT.with(|place| place.borrow().clone())
    }

    /// The node that runs this instance. In tests, it is `test`.
    pub fn node() -> String {
        "test".to_owned()
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn now() -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// A random number, uniform and unpredictable.
    pub fn random() -> u32 {
        // Each state has different keys, so even an empty hash differs.
        (RandomState::new().build_hasher().finish() >> 32) as u32
    }
}

/// Values that outlive instances and swaps. In tests, each thread has its own store, in which nothing expires.
pub mod store {
    use super::{KEY_BYTES_MAX, VALUE_BYTES_MAX, VALUES};

    pub use super::real::store::StoreError;

    /// The value of `key`; `None` if it was never set, was removed, or has expired.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the operation fails.
    pub fn get(key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        admit(key, &[])?;
        Ok(VALUES.with(|values| values.borrow().get(key).cloned()))
    }

    /// Sets `key`. The value expires after `ttl_seconds`, or never if that is `None`.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the operation fails.
    pub fn set(key: &str, value: &[u8], _ttl_seconds: Option<u32>) -> Result<(), StoreError> {
        admit(key, value)?;
        VALUES.with(|values| values.borrow_mut().insert(key.to_owned(), value.to_vec()));
        Ok(())
    }

    /// Removes `key`.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the operation fails.
    pub fn remove(key: &str) -> Result<(), StoreError> {
        admit(key, &[])?;
        VALUES.with(|values| values.borrow_mut().remove(key));
        Ok(())
    }

    /// Adds `by` to the decimal number under `key` and returns the sum. A new key starts at 0 and expires after
    /// `ttl_seconds`; an existing one keeps its expiry.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the operation fails.
    pub fn increment(key: &str, by: i32, ttl_seconds: Option<u32>) -> Result<i64, StoreError> {
        let old = match get(key)? {
            Some(text) => number(&text).ok_or(StoreError::NotANumber)?,
            None => 0,
        };
        let sum = old
            .checked_add(i64::from(by))
            .ok_or(StoreError::NotANumber)?;
        set(key, sum.to_string().as_bytes(), ttl_seconds)?;
        Ok(sum)
    }

    /// Sets `key` if its value is still `expected` (`None`: absent). Returns `false` if another call changed it first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the operation fails.
    pub fn compare_and_swap(
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_seconds: Option<u32>,
    ) -> Result<bool, StoreError> {
        admit(key, value)?;
        if get(key)?.as_deref() != expected {
            return Ok(false);
        }
        set(key, value, ttl_seconds).map(|()| true)
    }

    /// Parses a number as the server does: only the canonical decimal form is valid.
    fn number(text: &[u8]) -> Option<i64> {
        let text = std::str::from_utf8(text).ok()?;
        let number: i64 = text.parse().ok()?;
        (number.to_string() == text).then_some(number)
    }

    fn admit(key: &str, value: &[u8]) -> Result<(), StoreError> {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(StoreError::TooLarge);
        }
        Ok(())
    }
}

/// The members and the history of rooms. In tests, they are those that [`testing::set_room`](crate::testing::set_room) has
/// set.
pub mod room_state {
    use super::{REPLAY_MAX, ROOM_NAME_BYTES_MAX, ROOMS, Room};

    pub use super::real::room_state::{KeptMessage, Member, RoomError};

    /// The number of connections in `room`.
    ///
    /// # Errors
    /// Returns a [`RoomError`] if it cannot be read.
    pub fn count(room: &str) -> Result<u32, RoomError> {
        find(room).map(|room| room.count)
    }

    /// The users in `room`, ordered by ID: at most `presence.members_max` (1,000) of them.
    ///
    /// # Errors
    /// Returns a [`RoomError`] if they cannot be read.
    pub fn members(room: &str) -> Result<Vec<Member>, RoomError> {
        find(room)?.members.ok_or(RoomError::SwitchedOff)
    }

    /// The last `limit` messages of `room`, or those before the offset `before`, the oldest first. At most
    /// `limits.history_replay_max` (300).
    ///
    /// # Errors
    /// Returns a [`RoomError`] if they cannot be read.
    pub fn history(
        room: &str,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<KeptMessage>, RoomError> {
        let room = find(room)?;
        if limit == 0 {
            return Err(RoomError::Invalid);
        }
        let mut kept = room.history.ok_or(RoomError::SwitchedOff)?;
        kept.retain(|message| before.is_none_or(|before| message.offset < before));
        let most = REPLAY_MAX.min(usize::try_from(limit).unwrap_or(REPLAY_MAX));
        Ok(kept.split_off(kept.len().saturating_sub(most)))
    }

    fn find(room: &str) -> Result<Room, RoomError> {
        if room.is_empty() || room.len() > ROOM_NAME_BYTES_MAX {
            return Err(RoomError::Invalid);
        }
        Ok(ROOMS.with(|rooms| rooms.borrow().get(room).cloned().unwrap_or_default()))
    }
}

/// The plugin's own metrics, in addition to the server's. A name has 1 to 64 of `a-z 0-9 _`. In tests, they go to
/// standard error.
pub mod metrics {
    /// Adds `by` to the count called `name`.
    pub fn count(name: &str, by: u32) {
        eprintln!("count {name} {by}");
    }

    /// Adds `value` to the distribution called `name`, in a unit that the plugin chooses.
    pub fn observe(name: &str, value: f64) {
        eprintln!("observe {name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::{
        context, real,
        room_state::{self, KeptMessage, Member, RoomError},
        store::{self, StoreError},
    };
    use crate::testing;

    #[test]
    fn the_store_of_a_test_keeps_counts_and_compares() {
        assert_eq!(store::get("k"), Ok(None));
        assert_eq!(store::compare_and_swap("k", None, b"1", None), Ok(true));
        assert_eq!(store::compare_and_swap("k", None, b"2", None), Ok(false));
        assert_eq!(store::increment("k", 4, None), Ok(5));
        assert_eq!(store::get("k"), Ok(Some(b"5".to_vec())));
        for no_number in [&b"five"[..], b"+5", b"05", b" 5"] {
            assert_eq!(store::set("k", no_number, None), Ok(()));
            assert_eq!(store::increment("k", 1, None), Err(StoreError::NotANumber));
        }
        assert_eq!(store::remove("k"), Ok(()));
        assert_eq!(store::get("k"), Ok(None));
    }

    #[test]
    fn the_store_of_a_test_has_the_servers_default_limits() {
        let (key, value) = ("k".repeat(513), vec![0; 64 * 1024 + 1]);
        assert_eq!(store::get(&key), Err(StoreError::TooLarge));
        assert_eq!(store::set("k", &value, None), Err(StoreError::TooLarge));
        assert_eq!(store::set("k", &value[1..], None), Ok(()));
    }

    #[test]
    fn the_rooms_of_a_test_are_those_that_it_sets() {
        let kept = |offset| KeptMessage {
            offset,
            event_type: "a".to_owned(),
            sender: "ann".to_owned(),
            payload: "1".to_owned(),
            timestamp: 0,
        };
        let room = testing::Room {
            history: Some((1..=400).map(kept).collect()),
            ..testing::Room::default()
        };
        testing::set_room("r", room);
        let offsets = |before, limit| {
            let kept = room_state::history("r", before, limit);
            kept.map(|kept| kept.iter().map(|kept| kept.offset).collect::<Vec<_>>())
        };
        assert_eq!(offsets(None, 2), Ok(vec![399, 400]));
        assert_eq!(offsets(Some(3), 9), Ok(vec![1, 2]));
        assert_eq!(offsets(None, 1_000).map(|kept| kept.len()), Ok(300));
        assert_eq!(offsets(None, 0), Err(RoomError::Invalid));
        assert_eq!(room_state::count("other"), Ok(0));
        assert_eq!(room_state::count(""), Err(RoomError::Invalid));
        assert_eq!(
            room_state::history("other", None, 1).err(),
            Some(RoomError::SwitchedOff)
        );
    }

    #[test]
    fn a_test_says_whose_call_it_is() {
        assert_eq!(context::current_client(), None);
        testing::set_client(Some(testing::client("ann")));
        assert_eq!(
            context::current_client().map(|client| client.user),
            Some("ann".to_owned())
        );
    }

    #[test]
    fn random_numbers_differ() {
        let first = context::random();
        assert!((0..100).any(|_| context::random() != first));
    }

    /// A plugin that is tested with the doubles must compile against the bindings.
    #[test]
    fn the_doubles_have_the_signatures_of_the_bindings() {
        fn same<F>(_double: F, _real: F) {}
        same::<fn(real::log::Level, &str)>(super::log::write, real::log::write);
        same::<fn() -> Option<crate::Client>>(
            context::current_client,
            real::context::current_client,
        );
        same::<fn() -> String>(context::node, real::context::node);
        same::<fn() -> u64>(context::now, real::context::now);
        same::<fn() -> u32>(context::random, real::context::random);
        same::<fn(&str) -> Result<Option<Vec<u8>>, StoreError>>(store::get, real::store::get);
        same::<fn(&str, &[u8], Option<u32>) -> Result<(), StoreError>>(
            store::set,
            real::store::set,
        );
        same::<fn(&str) -> Result<(), StoreError>>(store::remove, real::store::remove);
        same::<fn(&str, i32, Option<u32>) -> Result<i64, StoreError>>(
            store::increment,
            real::store::increment,
        );
        same::<fn(&str, Option<&[u8]>, &[u8], Option<u32>) -> Result<bool, StoreError>>(
            store::compare_and_swap,
            real::store::compare_and_swap,
        );
        same::<fn(&str) -> Result<u32, RoomError>>(room_state::count, real::room_state::count);
        same::<fn(&str) -> Result<Vec<Member>, RoomError>>(
            room_state::members,
            real::room_state::members,
        );
        same::<fn(&str, Option<u64>, u32) -> Result<Vec<KeptMessage>, RoomError>>(
            room_state::history,
            real::room_state::history,
        );
        same::<fn(&str, u32)>(super::metrics::count, real::metrics::count);
        same::<fn(&str, f64)>(super::metrics::observe, real::metrics::observe);
    }
}
