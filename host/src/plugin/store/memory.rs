//! Values in this process's memory: a server with the memory broker is alone, so nobody else has to see them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};

use super::{Entry, PluginStore, StoreError, parse_number};

/// A [`PluginStore`] in this process's memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<HashMap<String, Shelf>>);

/// The values of one plugin.
#[derive(Debug, Default)]
struct Shelf {
    values: HashMap<String, Value>,
    bytes: usize,
    /// When expired values were last looked for.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Value {
    bytes: Vec<u8>,
    expires: Option<Instant>,
}

/// Expired values are thrown away when they are asked for, and all of them when room is short or so much time passed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

impl MemoryStore {
    fn with<R>(&self, plugin: &str, act: impl FnOnce(&mut Shelf, Instant) -> R) -> R {
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !shelves.contains_key(plugin) {
            shelves.insert(plugin.to_owned(), Shelf::default());
        }
        // Inserted above where it was missing.
        let now = Instant::now();
        match shelves.get_mut(plugin) {
            Some(shelf) => {
                if shelf
                    .swept
                    .is_none_or(|swept| now.duration_since(swept) > SWEEP_INTERVAL)
                {
                    shelf.sweep(now);
                }
                act(shelf, now)
            }
            None => act(&mut Shelf::default(), now),
        }
    }
}

impl Shelf {
    fn get(&mut self, key: &str, now: Instant) -> Option<&Value> {
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
        entry: Entry<'_>,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let size = entry.key.len() + entry.value.len();
        let replaced = self
            .get(entry.key, now)
            .map_or(0, |value| entry.key.len() + value.bytes.len());
        if self.bytes - replaced + size > bytes_max {
            self.sweep(now);
            if self.bytes - replaced + size > bytes_max {
                return Err(StoreError::TooLarge);
            }
        }
        self.bytes = self.bytes - replaced + size;
        self.values.insert(
            entry.key.to_owned(),
            Value {
                bytes: entry.value.to_vec(),
                expires,
            },
        );
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some(value) = self.values.remove(key) {
            self.bytes -= key.len() + value.bytes.len();
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.values
            .retain(|_, value| value.expires.is_none_or(|at| at > now));
        self.bytes = self
            .values
            .iter()
            .map(|(key, value)| key.len() + value.bytes.len())
            .sum();
        self.swept = Some(now);
    }

    fn increment(
        &mut self,
        bytes_max: usize,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<i64, StoreError> {
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
            Entry {
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
        entry: Entry<'_>,
        now: Instant,
    ) -> Result<bool, StoreError> {
        if self.get(entry.key, now).map(|value| value.bytes.as_slice()) != expected {
            return Ok(false);
        }
        self.put(bytes_max, entry, entry.ttl.map(|ttl| now + ttl), now)
            .map(|()| true)
    }
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
        entry: Entry<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let done = self.with(plugin, |shelf, now| {
            shelf.put(bytes_max, entry, entry.ttl.map(|ttl| now + ttl), now)
        });
        std::future::ready(done).boxed()
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
        let sum = self.with(plugin, |shelf, now| {
            shelf.increment(bytes_max, key, by, ttl, now)
        });
        std::future::ready(sum).boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        expected: Option<&'a [u8]>,
        entry: Entry<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let swapped = self.with(plugin, |shelf, now| {
            shelf.swap(bytes_max, expected, entry, now)
        });
        std::future::ready(swapped).boxed()
    }
}
