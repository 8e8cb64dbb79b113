//! A read-only store, for a shadow version that runs on copies of the live version's calls.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use super::{PluginStore, StoreEntry, StoreError, parse_number};

/// Reads from another store, and answers writes as that store would, without carrying them out. So a call that reads
/// what it has written finds the old value. The version's results on the live version's values are as close to the
/// truth as possible without changing those values.
pub(crate) struct ReadOnlyStore(pub(crate) Arc<dyn PluginStore>);

impl PluginStore for ReadOnlyStore {
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        self.0.get(plugin, key)
    }

    fn set<'a>(
        &'a self,
        _plugin: &'a str,
        _bytes_max: usize,
        _entry: StoreEntry<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }

    fn remove<'a>(
        &'a self,
        _plugin: &'a str,
        _key: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }

    fn increment<'a>(
        &'a self,
        plugin: &'a str,
        _bytes_max: usize,
        key: &'a str,
        by: i64,
        _ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<i64, StoreError>> {
        async move {
            let number = match self.0.get(plugin, key).await? {
                Some(value) => parse_number(&value).ok_or(StoreError::NotANumber)?,
                None => 0,
            };
            number.checked_add(by).ok_or(StoreError::NotANumber)
        }
        .boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        plugin: &'a str,
        _bytes_max: usize,
        expected: Option<&'a [u8]>,
        entry: StoreEntry<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let value = self.0.get(plugin, entry.key).await?;
            Ok(value.as_deref() == expected)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::MemoryStore, *};

    fn entry<'a>(key: &'a str, value: &'a [u8]) -> StoreEntry<'a> {
        StoreEntry {
            key,
            value,
            ttl: None,
        }
    }

    #[tokio::test]
    async fn values_are_read_and_writes_are_answered_and_not_made() {
        let store: Arc<dyn PluginStore> = Arc::<MemoryStore>::default();
        let unwritten = ReadOnlyStore(store.clone());
        store.set("p", 1_000, entry("n", b"7")).await.unwrap();
        store.set("p", 1_000, entry("t", b"text")).await.unwrap();
        let number = unwritten.increment("p", 1_000, "n", 3, None).await;
        assert_eq!(number, Ok(10));
        assert_eq!(unwritten.increment("p", 1_000, "new", 3, None).await, Ok(3));
        let text = unwritten.increment("p", 1_000, "t", 3, None).await;
        assert_eq!(text, Err(StoreError::NotANumber));
        let over = unwritten.increment("p", 1_000, "n", i64::MAX, None).await;
        assert_eq!(over, Err(StoreError::NotANumber));
        let swap = async |expected: Option<&[u8]>| {
            let swapped = unwritten.compare_and_swap("p", 1_000, expected, entry("n", b"8"));
            swapped.await.unwrap()
        };
        assert!(swap(Some(b"7")).await);
        assert!(!swap(Some(b"6")).await && !swap(None).await);
        unwritten.set("p", 1_000, entry("n", b"9")).await.unwrap();
        unwritten.remove("p", "n").await.unwrap();
        assert_eq!(unwritten.get("p", "n").await, Ok(Some(b"7".to_vec())));
        assert_eq!(store.get("p", "n").await, Ok(Some(b"7".to_vec())));
        assert_eq!(store.get("p", "new").await, Ok(None));
    }
}
