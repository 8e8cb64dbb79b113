//! Values that plugins keep beyond an instance and a version.
//!
//! [`PluginStore`] is the contract; a suite among the integration tests holds both stores to it: [`MemoryStore`] for a
//! node that is alone, [`RedisStore`] for nodes that share one Redis.

mod memory;
mod redis;
mod unwritten;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub(super) use self::unwritten::Unwritten;
pub use self::{memory::MemoryStore, redis::RedisStore};

/// Bytes that a value takes up in addition to its own and those of its key: for its place among the others, and its
/// expiry. About as much as either store needs, so that many small values take no more memory than a few large ones.
pub const ENTRY_BYTES: usize = 256;

/// The reason why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// All values of the plugin together would be over its limit.
    #[error("the plugin's values are over its limit")]
    TooLarge,
    /// The value or the sum is not a 64-bit number in plain decimal form.
    #[error("the value is not a number")]
    NotANumber,
    /// The store does not answer.
    #[error("the store does not answer")]
    Unavailable,
}

/// Keeps bytes under keys, for each plugin apart from the others, whatever plugins and keys are called.
///
/// The limits of single keys and values are checked before the store is asked; `bytes_max` is the limit of all keys
/// and values of the plugin together, with [`ENTRY_BYTES`] for each, those whose time is over left out. Each operation is atomic, and answers in time:
/// where the store cannot do it now, with [`StoreError::Unavailable`].
pub trait PluginStore: Send + Sync {
    /// The value of `key`; `None` if it has none or has expired.
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

    /// Sets the entry if its key still has the value `expected` (`None`: no value), and returns whether it did.
    fn compare_and_swap<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        expected: Option<&'a [u8]>,
        entry: Entry<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;
}

/// An entry to set.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Under which key.
    pub key: &'a str,
    /// The bytes.
    pub value: &'a [u8],
    /// The time to live; `None`: unlimited.
    pub ttl: Option<Duration>,
}

/// The number that a value spells: decimal, of 64 bits, and spelled as a number is printed, so without a plus sign, spaces
/// or leading zeros.
fn parse_number(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
