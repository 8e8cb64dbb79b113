//! Values that outlive the instances and versions of a plugin.
//!
//! [`PluginStore`] is the contract, and a suite of integration tests holds both stores to it: [`MemoryStore`] for a
//! single node, `RedisStore` for nodes that share one Redis, which needs the cargo feature `redis`.

mod memory;
mod read_only;
#[cfg(feature = "redis")]
mod redis;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub use self::memory::MemoryStore;
pub(super) use self::read_only::ReadOnlyStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;

/// Bytes that are charged for each entry in addition to its key and value, for its bookkeeping and its expiry. This is
/// about as much as either store needs, so that many small values take no more memory than a few large ones.
pub const ENTRY_BYTES: usize = 256;

/// The reason why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// All values of the plugin together would exceed its limit.
    #[error("the plugin's values are over its limit")]
    TooLarge,
    /// The value or the sum is not a 64-bit number in plain decimal form.
    #[error("the value is not a number")]
    NotANumber,
    /// The store does not answer.
    #[error("the store does not answer")]
    Unavailable,
}

/// Keeps bytes under keys, separately for each plugin, whatever the names of plugins and keys are.
///
/// The limits of single keys and values are checked before the store is called. `bytes_max` limits all keys and values
/// of the plugin together, plus [`ENTRY_BYTES`] for each entry; expired entries do not count. Each operation is atomic
/// and answers in time: with [`StoreError::Unavailable`] if the store cannot carry it out now.
pub trait PluginStore: Send + Sync {
    /// The value of `key`; `None` if it has none or has expired.
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;

    /// Sets an entry, for its time to live or permanently.
    fn set<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        entry: StoreEntry<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Removes `key`.
    fn remove<'a>(&'a self, plugin: &'a str, key: &'a str)
    -> BoxFuture<'a, Result<(), StoreError>>;

    /// Adds `by` to the decimal number under `key` and returns the sum. A new key starts at 0 and takes `ttl`; an
    /// existing one keeps its own.
    fn increment<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        key: &'a str,
        by: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<i64, StoreError>>;

    /// Sets the entry if its key still has the value `expected` (`None`: no value), and returns whether it did.
    fn compare_and_swap<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        expected: Option<&'a [u8]>,
        entry: StoreEntry<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;
}

/// An entry to set.
#[derive(Clone, Copy, Debug)]
pub struct StoreEntry<'a> {
    /// The key.
    pub key: &'a str,
    /// The bytes.
    pub value: &'a [u8],
    /// The time to live; `None`: unlimited.
    pub ttl: Option<Duration>,
}

/// Parses a value as a 64-bit decimal number, spelled as numbers are printed: without a plus sign, spaces or leading
/// zeros.
fn parse_number(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
