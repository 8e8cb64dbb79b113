//! Values in this process's memory: a server with the memory broker is the only node, so no other node has to see them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};

use super::{ENTRY_BYTES, PluginStore, StoreEntry, StoreError, parse_number};

/// A [`PluginStore`] in this process's memory.
#[derive(Debug, Default)]
pub struct MemoryStore(RwLock<HashMap<String, Arc<Mutex<PluginValues>>>>);

/// The values of one plugin.
#[derive(Debug, Default)]
struct PluginValues {
    values: HashMap<Arc<str>, StoredValue>,
    /// The keys that expire, by expiry time.
    ends: BTreeSet<(Instant, Arc<str>)>,
    bytes: usize,
}

#[derive(Debug)]
struct StoredValue {
    bytes: Vec<u8>,
    expires: Option<Instant>,
}

/// The most expired values that are removed at once: by any operation, and by a write that would not fit otherwise. The
/// rest waits, because no tick interrupts the host, and other threads wait for the lock.
const SWEEP: usize = 16;
const SWEEP_FOR_ROOM: usize = 1000;

/// Why nothing was written yet.
enum NotYet {
    /// There may be room after another round: more values have expired than one round removes.
    Again,
    Refused(StoreError),
}

impl From<StoreError> for NotYet {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl MemoryStore {
    fn with<R>(&self, plugin: &str, act: impl FnOnce(&mut PluginValues, Instant) -> R) -> R {
        let shelf = self.shelf(plugin);
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        shelf.sweep(SWEEP, now);
        act(&mut shelf, now)
    }

    /// Runs a write, and yields to other tasks before each further round.
    async fn write<R>(
        &self,
        plugin: &str,
        write: impl Fn(&mut PluginValues, Instant) -> Result<R, NotYet>,
    ) -> Result<R, StoreError> {
        loop {
            match self.with(plugin, &write) {
                Ok(written) => return Ok(written),
                Err(NotYet::Refused(error)) => return Err(error),
                Err(NotYet::Again) => tokio::task::yield_now().await,
            }
        }
    }

    fn shelf(&self, plugin: &str) -> Arc<Mutex<PluginValues>> {
        let shelves = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = shelves.get(plugin) {
            return shelf.clone();
        }
        drop(shelves);
        let mut shelves = self.0.write().unwrap_or_else(PoisonError::into_inner);
        shelves.entry(plugin.to_owned()).or_default().clone()
    }
}

impl PluginValues {
    fn get(&mut self, key: &str, now: Instant) -> Option<&StoredValue> {
        if self
            .values
            .get(key)
            .is_some_and(|value| value.expires.is_some_and(|at| at <= now))
        {
            self.remove(key);
        }
        self.values.get(key)
    }

    fn put(
        &mut self,
        bytes_max: usize,
        entry: StoreEntry<'_>,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<(), NotYet> {
        let size = size(entry.key, entry.value);
        let replaced = self.get(entry.key, now);
        let replaced = replaced.map_or(0, |value| self::size(entry.key, &value.bytes));
        let fits = |shelf: &Self| shelf.bytes - replaced + size <= bytes_max;
        if !fits(self) {
            let swept = self.sweep(SWEEP_FOR_ROOM, now);
            if !fits(self) {
                return Err(match swept {
                    SWEEP_FOR_ROOM => NotYet::Again,
                    _ => NotYet::Refused(StoreError::TooLarge),
                });
            }
        }
        self.remove(entry.key);
        let key: Arc<str> = entry.key.into();
        if let Some(at) = expires {
            self.ends.insert((at, key.clone()));
        }
        self.bytes += size;
        let bytes = entry.value.to_vec();
        self.values.insert(key, StoredValue { bytes, expires });
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, value)) = self.values.remove_entry(key) {
            self.bytes -= size(&key, &value.bytes);
            if let Some(at) = value.expires {
                self.ends.remove(&(at, key));
            }
        }
    }

    /// Removes up to `most` expired values, the oldest first, and returns how many.
    fn sweep(&mut self, most: usize, now: Instant) -> usize {
        for swept in 0..most {
            match self.ends.first() {
                Some((at, key)) if *at <= now => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => return swept,
            }
        }
        most
    }

    fn increment(
        &mut self,
        bytes_max: usize,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<i64, NotYet> {
        let (old, expires) = match self.get(key, now) {
            Some(value) => (
                parse_number(&value.bytes).ok_or(StoreError::NotANumber)?,
                value.expires,
            ),
            None => (0, ttl.map(|ttl| now + ttl)),
        };
        let sum = old.checked_add(by).ok_or(StoreError::NotANumber)?;
        let text = sum.to_string();
        self.put(
            bytes_max,
            StoreEntry {
                key,
                value: text.as_bytes(),
                ttl: None,
            },
            expires,
            now,
        )?;
        Ok(sum)
    }

    fn swap(
        &mut self,
        bytes_max: usize,
        expected: Option<&[u8]>,
        entry: StoreEntry<'_>,
        now: Instant,
    ) -> Result<bool, NotYet> {
        if self.get(entry.key, now).map(|value| value.bytes.as_slice()) != expected {
            return Ok(false);
        }
        self.put(bytes_max, entry, entry.ttl.map(|ttl| now + ttl), now)
            .map(|()| true)
    }
}

/// The bytes that an entry takes up.
fn size(key: &str, value: &[u8]) -> usize {
    ENTRY_BYTES + key.len() + value.len()
}

impl PluginStore for MemoryStore {
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let value = self.with(plugin, |shelf, now| {
            shelf.get(key, now).map(|value| value.bytes.clone())
        });
        std::future::ready(Ok(value)).boxed()
    }

    fn set<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        entry: StoreEntry<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.write(plugin, move |shelf, now| {
            shelf.put(bytes_max, entry, entry.ttl.map(|ttl| now + ttl), now)
        })
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.with(plugin, |shelf, _| shelf.remove(key));
        std::future::ready(Ok(())).boxed()
    }

    fn increment<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        key: &'a str,
        by: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<i64, StoreError>> {
        self.write(plugin, move |shelf, now| {
            shelf.increment(bytes_max, key, by, ttl, now)
        })
        .boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        expected: Option<&'a [u8]>,
        entry: StoreEntry<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.write(plugin, move |shelf, now| {
            shelf.swap(bytes_max, expected, entry, now)
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> StoreEntry<'_> {
        StoreEntry {
            key,
            value: b"x",
            ttl: None,
        }
    }

    #[test]
    fn values_that_end_together_are_thrown_away_little_by_little() {
        let (mut shelf, then) = (PluginValues::default(), Instant::now());
        let count = SWEEP_FOR_ROOM + 3 * SWEEP;
        for index in 0..count {
            let key = format!("{index:04}");
            let put = shelf.put(
                usize::MAX,
                entry(&key),
                Some(then),
                then - Duration::from_secs(1),
            );
            assert!(put.is_ok());
        }
        assert_eq!(shelf.sweep(SWEEP, then - Duration::from_secs(1)), 0);
        assert_eq!(shelf.sweep(SWEEP, then), SWEEP);
        assert!(
            shelf.get("1000", then).is_none(),
            "it is over, thrown away or not"
        );
        // One round does not make enough room.
        let room = ENTRY_BYTES + 5;
        assert!(matches!(
            shelf.put(room, entry("new"), None, then),
            Err(NotYet::Again)
        ));
        assert!(shelf.put(room, entry("new"), None, then).is_ok());
        assert_eq!(
            (shelf.values.len(), shelf.ends.len(), shelf.bytes),
            (1, 0, ENTRY_BYTES + 4)
        );
        assert!(matches!(
            shelf.put(room, entry("other"), None, then),
            Err(NotYet::Refused(StoreError::TooLarge))
        ));
    }
}
