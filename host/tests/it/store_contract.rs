//! The contract of a plugin store, for every backend.

use std::{any::Any, sync::Arc, time::Duration};

use futures_util::future::join_all;
use signalbox::{
    plugin::{ENTRY_BYTES, MemoryStore, PluginStore, RedisStore, StoreEntry, StoreError},
    redis_client::{Commands, Endpoints},
};

use crate::redis::{Cluster, Server, config, until};

/// Enough room for all tests that are not about room.
const PLENTY: usize = 1 << 20;

/// Two handles to one store, as on two nodes, and the backend that must outlive them.
struct Stores {
    one: Arc<dyn PluginStore>,
    other: Arc<dyn PluginStore>,
    _backend: Box<dyn Any>,
}

async fn memory() -> Stores {
    let store = Arc::new(MemoryStore::default());
    Stores {
        one: store.clone(),
        other: store,
        _backend: Box::new(()),
    }
}

async fn redis() -> Stores {
    let server = Server::start().await;
    Stores {
        one: redis_store(&server.url(), "test:").await,
        other: redis_store(&server.url(), "test:").await,
        _backend: Box::new(server),
    }
}

async fn cluster() -> Stores {
    let cluster = Cluster::start().await;
    Stores {
        one: redis_store(&cluster.urls(), "test:").await,
        other: redis_store(&cluster.urls(), "test:").await,
        _backend: Box::new(cluster),
    }
}

/// A connected store whose keys begin with `key_prefix`.
pub(crate) async fn redis_store(urls: &str, key_prefix: &str) -> Arc<dyn PluginStore> {
    let config = config(urls, key_prefix, Duration::from_secs(10));
    let commands = Commands::start(
        Endpoints::new(&config).expect("valid addresses"),
        &Arc::default(),
    );
    let store = Arc::new(RedisStore::new(commands, key_prefix));
    until("the store is connected", async || {
        store.get("p", "k").await.ok()
    })
    .await;
    store
}

fn entry<'a>(key: &'a str, value: &'a [u8]) -> StoreEntry<'a> {
    StoreEntry {
        key,
        value,
        ttl: None,
    }
}

fn passing<'a>(key: &'a str, value: &'a [u8], ttl: Duration) -> StoreEntry<'a> {
    StoreEntry {
        ttl: Some(ttl),
        ..entry(key, value)
    }
}

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(3600);

async fn until_gone(store: &dyn PluginStore, plugin: &str, key: &str) {
    until("the value expires", async || {
        let value = store.get(plugin, key).await.expect("the store answers");
        value.is_none().then_some(())
    })
    .await;
}

async fn a_value_is_kept_replaced_and_removed(stores: Stores) {
    let store = &*stores.one;
    assert_eq!(store.get("p", "k").await, Ok(None));
    store.set("p", PLENTY, entry("k", b"1")).await.unwrap();
    store.set("p", PLENTY, entry("k", b"22")).await.unwrap();
    assert_eq!(store.get("p", "k").await, Ok(Some(b"22".to_vec())));
    store.remove("p", "k").await.unwrap();
    assert_eq!(store.get("p", "k").await, Ok(None));
    store.remove("p", "k").await.unwrap();
}

async fn all_nodes_see_the_same(stores: Stores) {
    stores.one.set("p", PLENTY, entry("k", b"1")).await.unwrap();
    assert_eq!(stores.other.get("p", "k").await, Ok(Some(b"1".to_vec())));
    assert_eq!(
        stores.other.increment("p", PLENTY, "k", 1, None).await,
        Ok(2)
    );
    assert_eq!(stores.one.get("p", "k").await, Ok(Some(b"2".to_vec())));
    stores.other.remove("p", "k").await.unwrap();
    assert_eq!(stores.one.get("p", "k").await, Ok(None));
}

async fn values_are_any_bytes_and_an_empty_one_is_not_none(stores: Stores) {
    let store = &*stores.one;
    let all: Vec<u8> = (0..=255).collect();
    for value in [&all[..], b"", b"\0", b"\r\n", b"\xff\xfe"] {
        store.set("p", PLENTY, entry("k", value)).await.unwrap();
        assert_eq!(store.get("p", "k").await, Ok(Some(value.to_vec())));
        let swapped = store
            .compare_and_swap("p", PLENTY, Some(value), entry("k", value))
            .await;
        assert_eq!(swapped, Ok(true), "{value:?}");
    }
    store.set("p", PLENTY, entry("k", b"")).await.unwrap();
    let swapped = store
        .compare_and_swap("p", PLENTY, None, entry("k", b"x"))
        .await;
    assert_eq!(swapped, Ok(false));
}

async fn no_name_of_a_plugin_or_key_opens_another_plugins_values(stores: Stores) {
    let store = &*stores.one;
    let names = [
        "p",
        "q",
        "p}",
        "{p}",
        "p}:value:k",
        "p:",
        "p%7D",
        "",
        "value",
        "sum",
        "lasting",
        "passing",
        "k\0",
        "ä",
    ];
    for plugin in names {
        for key in names {
            let value = format!("{plugin}/{key}");
            store
                .set(plugin, PLENTY, entry(key, value.as_bytes()))
                .await
                .unwrap();
        }
    }
    for plugin in names {
        for key in names {
            let value = format!("{plugin}/{key}").into_bytes();
            assert_eq!(store.get(plugin, key).await, Ok(Some(value)));
        }
    }
    for key in names {
        store.remove("p", key).await.unwrap();
    }
    for key in names {
        assert_eq!(store.get("p", key).await, Ok(None));
        assert!(store.get("q", key).await.unwrap().is_some(), "{key}");
    }
}

async fn a_value_ends_with_its_time(stores: Stores) {
    let store = &*stores.one;
    store
        .set("p", PLENTY, passing("k", b"x", SOON))
        .await
        .unwrap();
    store
        .set("p", PLENTY, passing("l", b"x", LATE))
        .await
        .unwrap();
    until_gone(store, "p", "k").await;
    assert_eq!(store.get("p", "l").await, Ok(Some(b"x".to_vec())));
    assert_eq!(
        store
            .compare_and_swap("p", PLENTY, None, entry("k", b"y"))
            .await,
        Ok(true),
        "it is absent now"
    );
    let none = Duration::ZERO;
    store
        .set("p", PLENTY, passing("k", b"x", none))
        .await
        .unwrap();
    until_gone(store, "p", "k").await;
}

async fn writing_again_sets_another_time_or_none(stores: Stores) {
    let store = &*stores.one;
    store
        .set("p", PLENTY, passing("a", b"x", SOON))
        .await
        .unwrap();
    store.set("p", PLENTY, entry("a", b"y")).await.unwrap();
    store
        .set("p", PLENTY, passing("b", b"x", SOON))
        .await
        .unwrap();
    store
        .set("p", PLENTY, passing("b", b"y", LATE))
        .await
        .unwrap();
    store.set("p", PLENTY, entry("c", b"x")).await.unwrap();
    store
        .set("p", PLENTY, passing("c", b"y", SOON))
        .await
        .unwrap();
    store
        .set("p", PLENTY, passing("end", b"", SOON))
        .await
        .unwrap();
    until_gone(store, "p", "end").await;
    until_gone(store, "p", "c").await;
    for key in ["a", "b"] {
        assert_eq!(store.get("p", key).await, Ok(Some(b"y".to_vec())), "{key}");
    }
}

async fn increments_add_up_within_64_bits(stores: Stores) {
    let store = &*stores.one;
    let increment = async |key: &str, by: i64| store.increment("p", PLENTY, key, by, None).await;
    assert_eq!(increment("n", 5).await, Ok(5));
    assert_eq!(increment("n", -7).await, Ok(-2));
    assert_eq!(increment("n", 0).await, Ok(-2));
    assert_eq!(
        increment("big", 9_007_199_254_740_993).await,
        Ok(9_007_199_254_740_993)
    );
    assert_eq!(increment("big", 1).await, Ok(9_007_199_254_740_994));
    assert_eq!(increment("max", i64::MAX).await, Ok(i64::MAX));
    assert_eq!(increment("max", 1).await, Err(StoreError::NotANumber));
    assert_eq!(increment("min", i64::MIN).await, Ok(i64::MIN));
    assert_eq!(increment("min", -1).await, Err(StoreError::NotANumber));
    let max = i64::MAX.to_string().into_bytes();
    assert_eq!(store.get("p", "max").await, Ok(Some(max)), "as before");
}

async fn what_is_no_plain_number_is_not_incremented(stores: Stores) {
    let store = &*stores.one;
    for value in [
        "x",
        "",
        "+1",
        "01",
        "-0",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "9223372036854775808",
    ] {
        store
            .set("p", PLENTY, entry("t", value.as_bytes()))
            .await
            .unwrap();
        assert_eq!(
            store.increment("p", PLENTY, "t", 1, None).await,
            Err(StoreError::NotANumber),
            "{value:?}"
        );
        assert_eq!(store.get("p", "t").await, Ok(Some(value.into())));
    }
}

async fn a_new_number_takes_the_time_and_an_old_one_keeps_its_own(stores: Stores) {
    let store = &*stores.one;
    let increment = async |key: &str, ttl| store.increment("p", PLENTY, key, 9, ttl).await;
    assert_eq!(increment("new", Some(SOON)).await, Ok(9));
    assert_eq!(increment("lasting", None).await, Ok(9));
    assert_eq!(increment("lasting", Some(SOON)).await, Ok(18));
    assert_eq!(increment("late", Some(LATE)).await, Ok(9));
    assert_eq!(increment("late", Some(SOON)).await, Ok(18));
    // On a busy machine the value may expire before it is incremented again.
    while {
        store.remove("p", "soon").await.unwrap();
        assert_eq!(increment("soon", Some(SOON)).await, Ok(9));
        increment("soon", None).await != Ok(18)
    } {}
    until_gone(store, "p", "new").await;
    until_gone(store, "p", "soon").await;
    for key in ["lasting", "late"] {
        assert_eq!(store.get("p", key).await, Ok(Some(b"18".to_vec())), "{key}");
    }
    assert_eq!(increment("new", None).await, Ok(9), "it starts again");
}

async fn compare_and_swap_sets_only_if_the_value_is_the_expected_one(stores: Stores) {
    let store = &*stores.one;
    let swap = async |expected, value| {
        store
            .compare_and_swap("p", PLENTY, expected, entry("k", value))
            .await
    };
    assert_eq!(swap(Some(b"1"), b"0").await, Ok(false));
    assert_eq!(swap(None, b"1").await, Ok(true));
    assert_eq!(swap(None, b"2").await, Ok(false));
    assert_eq!(swap(Some(b"2"), b"3").await, Ok(false));
    assert_eq!(store.get("p", "k").await, Ok(Some(b"1".to_vec())));
    assert_eq!(swap(Some(b"1"), b"2").await, Ok(true));
    assert_eq!(store.get("p", "k").await, Ok(Some(b"2".to_vec())));
}

async fn concurrent_swaps_have_one_winner_and_no_increment_is_lost(stores: Stores) {
    let each = (0..40).map(|n| {
        let store = if n % 2 == 0 {
            stores.one.clone()
        } else {
            stores.other.clone()
        };
        tokio::spawn(async move {
            store.increment("p", PLENTY, "n", 1, None).await.unwrap();
            let value = n.to_string();
            let entry = entry("k", value.as_bytes());
            store
                .compare_and_swap("p", PLENTY, None, entry)
                .await
                .unwrap()
        })
    });
    let swapped = join_all(each).await;
    assert_eq!(
        swapped
            .iter()
            .filter(|done| *done.as_ref().unwrap())
            .count(),
        1
    );
    assert_eq!(stores.one.get("p", "n").await, Ok(Some(b"40".to_vec())));
}

/// Room for one value, with this many bytes for key and value.
const fn one(bytes: usize) -> usize {
    ENTRY_BYTES + bytes
}

/// Room for two values, with this many bytes for both keys and values.
const fn two(bytes: usize) -> usize {
    2 * ENTRY_BYTES + bytes
}

async fn many_small_values_take_no_more_memory_than_the_limit(stores: Stores) {
    let (store, room) = (&*stores.one, 64 << 10);
    let mut kept = 0;
    while store
        .set("p", room, entry(&format!("{kept:03}"), b"x"))
        .await
        .is_ok()
    {
        kept += 1;
    }
    assert_eq!(kept, room / one(4), "each is counted with its upkeep");
    store.remove("p", "000").await.unwrap();
    assert_eq!(store.set("p", room, entry("new", b"x")).await, Ok(()));
}

async fn all_values_and_keys_of_a_plugin_are_bounded(stores: Stores) {
    let store = &*stores.one;
    store.set("p", two(10), entry("a", b"1234")).await.unwrap();
    let full = Err(StoreError::TooLarge);
    assert_eq!(store.set("p", two(10), entry("b", b"12345")).await, full);
    assert_eq!(store.get("p", "b").await, Ok(None));
    store.set("p", one(10), entry("a", b"12345")).await.unwrap();
    assert_eq!(
        store
            .set("p", two(10), entry("a", &[b'x'; ENTRY_BYTES + 10]))
            .await,
        full
    );
    assert_eq!(
        store.get("p", "a").await,
        Ok(Some(b"12345".to_vec())),
        "as before"
    );
    store.set("p", two(10), entry("b", b"123")).await.unwrap();
    assert_eq!(
        store.set("p", two(10), entry("c", b"")).await,
        full,
        "a key takes room too"
    );
    store
        .set("q", one(10), entry("a", b"123456789"))
        .await
        .unwrap();
    store.remove("p", "a").await.unwrap();
    store.set("p", two(10), entry("c", b"12345")).await.unwrap();
    assert_eq!(store.get("p", "b").await, Ok(Some(b"123".to_vec())));
}

async fn what_one_plugin_fills_up_takes_no_room_from_another(stores: Stores) {
    let (store, bytes_max) = (&*stores.one, one(100));
    let full = entry("k", &[b'x'; 99]);
    assert_eq!(store.set("a", bytes_max, full).await, Ok(()));
    let more = entry("l", b"x");
    assert_eq!(
        store.set("a", bytes_max, more).await,
        Err(StoreError::TooLarge)
    );
    let full = entry("k", &[b'y'; 99]);
    assert_eq!(store.set("b", bytes_max, full).await, Ok(()));
    assert_eq!(
        store.get("a", "k").await,
        Ok(Some(vec![b'x'; 99])),
        "and it is not what the other wrote"
    );
}

async fn swaps_and_increments_are_bounded_and_refused_ones_change_nothing(stores: Stores) {
    let store = &*stores.one;
    let full = Err(StoreError::TooLarge);
    store.set("p", one(10), entry("nine", b"9")).await.unwrap();
    assert_eq!(store.increment("p", one(5), "nine", 1, None).await, full);
    assert_eq!(store.get("p", "nine").await, Ok(Some(b"9".to_vec())));
    assert_eq!(store.increment("p", one(5), "nine", -1, None).await, Ok(8));
    assert_eq!(
        store.increment("p", two(6), "n", 1, None).await.map(drop),
        Err(StoreError::TooLarge)
    );
    assert_eq!(store.get("p", "n").await, Ok(None));
    let swapped = store
        .compare_and_swap("p", one(7), Some(b"8"), entry("nine", b"1234"))
        .await;
    assert_eq!(swapped, Err(StoreError::TooLarge));
    assert_eq!(store.get("p", "nine").await, Ok(Some(b"8".to_vec())));
    let differs = store
        .compare_and_swap("p", one(7), Some(b"9"), entry("nine", b"1234"))
        .await;
    assert_eq!(differs, Ok(false), "what is not written needs no room");
    // With a TTL, too.
    store
        .set("q", one(10), passing("nine", b"9", LATE))
        .await
        .unwrap();
    assert_eq!(store.increment("q", one(5), "nine", 1, None).await, full);
    store
        .set("q", one(10), passing("nine", b"9", SOON))
        .await
        .unwrap();
    until_gone(store, "q", "nine").await;
}

async fn what_is_over_takes_no_room(stores: Stores) {
    let store = &*stores.one;
    // More than a single call evicts.
    for n in 0..2500 {
        let key = format!("{n:04}");
        let bytes_max = 2500 * one(4) + 100;
        store
            .set("p", bytes_max, passing(&key, b"", SOON))
            .await
            .unwrap();
    }
    store
        .set("p", PLENTY, entry("lasting", b"x"))
        .await
        .unwrap();
    until_gone(store, "p", "2499").await;
    assert_eq!(
        store.set("p", two(20), entry("k", b"12345678901")).await,
        Ok(())
    );
    assert_eq!(
        store.set("p", 20, entry("l", b"")).await,
        Err(StoreError::TooLarge),
        "what is not over does"
    );
}

async fn the_byte_account_is_right_after_any_operations(stores: Stores) {
    let store = &*stores.one;
    // TTLs that end meanwhile, sizes that change, the same key with and without a TTL.
    for round in 0..300_u64 {
        let key = format!("k{}", round % 7);
        let value = vec![b'1'; usize::try_from(round % 5).unwrap()];
        let ttl = [None, Some(Duration::from_millis(round % 11)), Some(LATE)][round as usize % 3];
        let entry = StoreEntry {
            key: &key,
            value: &value,
            ttl,
        };
        match round % 8 {
            0 => store.remove("p", &key).await.unwrap(),
            1 => drop(store.increment("p", PLENTY, &key, 1_000, ttl).await),
            2 => drop(
                store
                    .compare_and_swap("p", PLENTY, None, entry)
                    .await
                    .unwrap(),
            ),
            _ => store.set("p", PLENTY, entry).await.unwrap(),
        }
    }
    for n in 0..7 {
        store.remove("p", &format!("k{n}")).await.unwrap();
    }
    // With everything removed, exactly one entry fits again.
    store
        .set("p", one(10), entry("k", b"123456789"))
        .await
        .unwrap();
    assert_eq!(
        store.set("p", one(10), entry("l", b"")).await,
        Err(StoreError::TooLarge)
    );
}

macro_rules! passes_the_contract {
    ($store:ident: $make:expr; $($requirement:ident)*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $requirement() {
                    super::$requirement($make().await).await;
                }
            )*
        }
    };
    ($store:ident: $make:expr) => {
        passes_the_contract! { $store: $make;
            a_value_is_kept_replaced_and_removed
            all_nodes_see_the_same
            values_are_any_bytes_and_an_empty_one_is_not_none
            no_name_of_a_plugin_or_key_opens_another_plugins_values
            a_value_ends_with_its_time
            writing_again_sets_another_time_or_none
            increments_add_up_within_64_bits
            what_is_no_plain_number_is_not_incremented
            a_new_number_takes_the_time_and_an_old_one_keeps_its_own
            compare_and_swap_sets_only_if_the_value_is_the_expected_one
            concurrent_swaps_have_one_winner_and_no_increment_is_lost
            all_values_and_keys_of_a_plugin_are_bounded
            many_small_values_take_no_more_memory_than_the_limit
            what_one_plugin_fills_up_takes_no_room_from_another
            swaps_and_increments_are_bounded_and_refused_ones_change_nothing
            what_is_over_takes_no_room
            the_byte_account_is_right_after_any_operations
        }
    };
}

passes_the_contract!(in_memory: super::memory);
passes_the_contract!(in_redis: super::redis);
// In a cluster the script is the same; only the location of the keys may differ.
passes_the_contract! { in_a_cluster: super::cluster;
    no_name_of_a_plugin_or_key_opens_another_plugins_values
    concurrent_swaps_have_one_winner_and_no_increment_is_lost
    the_byte_account_is_right_after_any_operations
}
