//! Values that plugins keep beyond an instance and a version.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};

/// Why the store did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// All values of the plugin together would be over its limit.
    #[error("the plugin's values are over its limit")]
    TooLarge,
    /// The value is no decimal number of 64 bits, or the sum is none.
    #[error("the value is not a number")]
    NotANumber,
    /// The store does not answer.
    #[error("the store does not answer")]
    Unavailable,
}

/// Keeps bytes under keys, for each plugin apart from the others.
///
/// The limits of single keys and values are checked before the store is asked; `bytes_max` is the limit of all keys
/// and values of the plugin together. Each operation is atomic.
pub trait PluginStore: Send + Sync {
    /// The value of `key`, unless it has none or its time is over.
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;

    /// Sets `key`, for `ttl` or for good.
    fn set<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        entry: Entry<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Forgets `key`.
    fn remove<'a>(&'a self, plugin: &'a str, key: &'a str)
    -> BoxFuture<'a, Result<(), StoreError>>;

    /// Adds `by` to the decimal number under `key` and returns the sum. A new key starts at 0 and takes `ttl`; an old
    /// one keeps its own.
    fn increment<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        key: &'a str,
        by: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<i64, StoreError>>;

    /// Sets the entry where its key still has the value `expected` (none: has none), and says whether it did.
    fn compare_and_swap<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        expected: Option<&'a [u8]>,
        entry: Entry<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;
}

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Under which key.
    pub key: &'a str,
    /// The bytes.
    pub value: &'a [u8],
    /// For how long; none: for good.
    pub ttl: Option<Duration>,
}

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

fn parse_number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(key: &'a str, value: &'a [u8]) -> Entry<'a> {
        Entry {
            key,
            value,
            ttl: None,
        }
    }

    async fn a_value_is_kept_replaced_and_removed(store: &dyn PluginStore) {
        assert_eq!(store.get("p", "k").await, Ok(None));
        store.set("p", 100, entry("k", b"1")).await.unwrap();
        store.set("p", 100, entry("k", b"22")).await.unwrap();
        assert_eq!(store.get("p", "k").await, Ok(Some(b"22".to_vec())));
        store.remove("p", "k").await.unwrap();
        assert_eq!(store.get("p", "k").await, Ok(None));
    }

    async fn keys_of_one_plugin_are_closed_to_others(store: &dyn PluginStore) {
        store.set("p", 100, entry("k", b"p")).await.unwrap();
        assert_eq!(store.get("q", "k").await, Ok(None));
        store.remove("q", "k").await.unwrap();
        assert_eq!(store.get("p", "k").await, Ok(Some(b"p".to_vec())));
    }

    async fn a_value_ends_with_its_time(store: &dyn PluginStore) {
        let ttl = Some(Duration::from_millis(20));
        store
            .set(
                "p",
                100,
                Entry {
                    ttl,
                    ..entry("k", b"x")
                },
            )
            .await
            .unwrap();
        while store.get("p", "k").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    }

    async fn increments_add_up_and_refuse_what_is_no_number(store: &dyn PluginStore) {
        assert_eq!(store.increment("p", 100, "n", 5, None).await, Ok(5));
        assert_eq!(store.increment("p", 100, "n", -7, None).await, Ok(-2));
        store.set("p", 100, entry("t", b"x")).await.unwrap();
        assert_eq!(
            store.increment("p", 100, "t", 1, None).await,
            Err(StoreError::NotANumber)
        );
        store
            .set("p", 100, entry("n", i64::MAX.to_string().as_bytes()))
            .await
            .unwrap();
        assert_eq!(
            store.increment("p", 100, "n", 1, None).await,
            Err(StoreError::NotANumber)
        );
    }

    async fn compare_and_swap_sets_only_what_is_expected(store: &dyn PluginStore) {
        assert_eq!(
            store
                .compare_and_swap("p", 100, None, entry("k", b"1"))
                .await,
            Ok(true)
        );
        assert_eq!(
            store
                .compare_and_swap("p", 100, None, entry("k", b"2"))
                .await,
            Ok(false)
        );
        assert_eq!(
            store
                .compare_and_swap("p", 100, Some(b"1"), entry("k", b"2"))
                .await,
            Ok(true)
        );
        assert_eq!(store.get("p", "k").await, Ok(Some(b"2".to_vec())));
    }

    async fn all_values_of_a_plugin_are_bounded(store: &dyn PluginStore) {
        store.set("p", 10, entry("a", b"1234")).await.unwrap();
        assert_eq!(
            store.set("p", 10, entry("b", b"12345")).await,
            Err(StoreError::TooLarge)
        );
        store.set("p", 10, entry("a", b"12345")).await.unwrap();
        store.set("p", 10, entry("b", b"123")).await.unwrap();
        store.remove("p", "a").await.unwrap();
        store.set("p", 10, entry("c", b"12345")).await.unwrap();
        assert_eq!(store.get("p", "b").await, Ok(Some(b"123".to_vec())));
    }

    macro_rules! passes_the_contract {
        ($store:ident: $make:expr; $($requirement:ident)*) => {
            mod $store {
                $(
                    #[tokio::test]
                    async fn $requirement() {
                        super::$requirement(&$make).await;
                    }
                )*
            }
        };
        ($store:ident: $make:expr) => {
            passes_the_contract! { $store: $make;
                a_value_is_kept_replaced_and_removed
                keys_of_one_plugin_are_closed_to_others
                a_value_ends_with_its_time
                increments_add_up_and_refuse_what_is_no_number
                compare_and_swap_sets_only_what_is_expected
                all_values_of_a_plugin_are_bounded
            }
        };
    }

    passes_the_contract!(memory: super::MemoryStore::default());
}
