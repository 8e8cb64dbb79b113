//! The clock of Redis is set forward or back. Only the time that keys have left depends on it.

use std::sync::Arc;

use super::{
    history::{ALL, messages},
    nodes::{RETENTION, redis_nodes},
};
use crate::redis::Server;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Does to all keys what setting the clock of Redis forward does, or back if `by_ms` is negative.
async fn set_clock_forward(server: &Server, by_ms: i64) {
    const SHIFT: &str = "for _, key in ipairs(redis.call('KEYS', '*')) do
        local left = redis.call('PTTL', key)
        if left >= 0 then
            redis.call('PEXPIRE', key, string.format('%.0f', left - tonumber(ARGV[1])))
        end
    end";
    let _: () = server
        .command(&["EVAL", SHIFT, "0", &by_ms.to_string()])
        .await;
}

#[tokio::test]
async fn setting_the_clock_of_redis_forward_by_an_hour_expires_messages_and_keeps_the_position() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    let first = nodes[0].append("r", "one").await.position;
    nodes[1].append("r", "two").await;
    set_clock_forward(&server, HOUR_MS).await;
    let page = nodes[0].read("r", ALL).await;
    assert_eq!(
        (&page.position.epoch, page.position.offset),
        (&first.epoch, 2)
    );
    assert!(page.messages.is_empty());
    let third = nodes[0].append("r", "three").await.position;
    assert_eq!((&third.epoch, third.offset), (&first.epoch, 3));
    let page = nodes[1].read("r", ALL).await;
    assert_eq!(messages(&page), [(3, "three".to_owned())]);
}

#[tokio::test]
async fn a_clock_of_redis_that_is_set_forward_by_a_day_begins_another_epoch() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    let old = nodes[0].append("r", "old").await.position;
    set_clock_forward(&server, DAY_MS).await;
    assert_eq!(nodes[1].positions(&["r"]).await, [None]);
    let new = nodes[1].append("r", "new").await.position;
    assert_ne!(new.epoch, old.epoch);
    let page = nodes[0].read("r", ALL).await;
    assert_eq!(page.position, new);
    assert_eq!(messages(&page), [(1, "new".to_owned())]);
}

#[tokio::test]
async fn a_clock_of_redis_that_is_set_back_keeps_messages_for_longer_until_the_next_one() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    let first = nodes[0].append("r", "one").await.position;
    for back in [HOUR_MS, DAY_MS] {
        set_clock_forward(&server, -back).await;
    }
    let page = nodes[1].read("r", ALL).await;
    assert_eq!(page.position, first);
    assert_eq!(messages(&page), [(1, "one".to_owned())]);
    let second = nodes[1].append("r", "two").await.position;
    assert_eq!((&second.epoch, second.offset), (&first.epoch, 2));
    for (key, time) in [
        ("room_history:{r}:log", RETENTION.time),
        ("room_history:{r}:head", RETENTION.position_time()),
    ] {
        let left: u128 = server.command(&["PTTL", key]).await;
        assert!((1..=time.as_millis()).contains(&left), "{key}: {left}");
    }
    let page = nodes[0].read("r", ALL).await;
    let expected = [(1, "one".to_owned()), (2, "two".to_owned())];
    assert_eq!(messages(&page), expected);
}
