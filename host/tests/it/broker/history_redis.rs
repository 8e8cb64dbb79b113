//! Histories in Redis: lost and foreign data, and nodes of an earlier version.

use std::{sync::Arc, time::Duration};

use ::redis::aio::PubSub;
use futures_util::{
    StreamExt as _,
    future::{join, join_all},
};
use signalbox::broker::{AppendKind, AppendOnce, HistoryName, HistoryQuery, Target};

use super::{
    history::{ALL, messages},
    nodes::{RETENTION, frame, redis_nodes, text_in},
};
use crate::redis::{Server, until};

const HEAD: &str = "room_history:{r}:head";
const LOG: &str = "room_history:{r}:log";

#[tokio::test]
async fn an_entry_has_the_number_of_its_message_as_id_and_everything_expires() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let position = nodes[0].append("r", "x").await.position;
    let entries: Vec<(String, Vec<String>)> = server.command(&["XRANGE", LOG, "-", "+"]).await;
    let [(id, fields)] = entries.as_slice() else {
        panic!("one entry: {entries:?}")
    };
    let [name, value] = fields.as_slice() else {
        panic!("one field: {fields:?}")
    };
    assert_eq!(
        (id.as_str(), name.as_str()),
        ("1-0", position.epoch.as_str())
    );
    let is_frame = value.starts_with(r#"{"type":"test","payload":"x","#);
    assert!(is_frame && !value.contains("offset"), "{value}");
    let head: Vec<String> = server.command(&["HMGET", HEAD, "e", "o"]).await;
    assert_eq!(head, [position.epoch.as_str(), "1"]);
    for (key, most) in [(LOG, 3_600), (HEAD, 86_400)] {
        let seconds: i64 = server.command(&["TTL", key]).await;
        assert!((1..=most).contains(&seconds), "{key}: {seconds}");
    }
}

#[tokio::test]
async fn a_repetition_is_not_appended_and_its_receivers_get_the_first_message() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    nodes[1].join("r").await;
    let append = async |node: usize, id, text| {
        let once = AppendOnce {
            id,
            time: Duration::from_secs(60),
        };
        let message = frame(Target::Room("r"), text);
        let room = HistoryName::Room("r");
        let appended = nodes[node]
            .broker
            .append(room, &message, RETENTION, Some(once), None);
        appended.await.unwrap()
    };
    let first = append(0, "a-1", "first").await;
    assert_eq!(first.kind, AppendKind::New);
    for node in [0, 1] {
        let again = append(node, "a-1", "again").await;
        assert_eq!(again.position, first.position);
        let AppendKind::Repetition(Some(kept)) = &again.kind else {
            panic!("a repetition: {again:?}")
        };
        assert_eq!(text_in(kept), "first");
        assert!(!kept.as_str().contains("offset"), "{kept:?}");
        assert_eq!((again.connections, again.nodes), (node, 1 - node));
    }
    until("the message arrives with each attempt", async || {
        let kept = nodes[1].kept("r");
        (kept == vec![(1, "first".to_owned()); 3]).then_some(())
    })
    .await;
    assert_eq!(append(0, "a-2", "second").await.position.offset, 2);
    let page = nodes[0].read("r", ALL).await;
    assert_eq!(
        messages(&page),
        [(1, "first".to_owned()), (2, "second".to_owned())]
    );
    let key = "room_history:{r}:once:a-1";
    let left: i64 = server.command(&["PTTL", key]).await;
    assert!((1..=60_000).contains(&left), "{left}");
    // The message may be gone before its place is forgotten.
    let _: () = server.command(&["XTRIM", LOG, "MAXLEN", "1"]).await;
    let gone = append(0, "a-1", "again").await;
    assert_eq!(gone.kind, AppendKind::Repetition(None));
    assert_eq!(
        (gone.position, gone.connections, gone.nodes),
        (first.position.clone(), 0, 0)
    );
    // Places of another epoch, strange ones, and those that the history has not reached mean nothing.
    for strange in ["", "x", "other 1", &format!("{} 9", first.position.epoch)] {
        let _: () = server.command(&["SET", key, strange]).await;
        assert_eq!(append(0, "a-1", "x").await.kind, AppendKind::New);
    }
    let _: () = server.command(&["DEL", HEAD]).await;
    let other = append(0, "a-1", "new").await;
    assert_eq!((other.kind, other.position.offset), (AppendKind::New, 1));
}

#[tokio::test]
async fn an_emptied_redis_and_a_log_without_a_head_begin_another_epoch() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    for lose in [["DEL", HEAD].as_slice(), &["FLUSHALL"]] {
        for reads_first in [true, false] {
            let old = nodes[0].append("r", "old").await.position;
            let _: () = server.command(lose).await;
            if reads_first {
                let page = nodes[0].read("r", ALL).await;
                assert_ne!(page.position.epoch, old.epoch);
                assert_eq!((page.position.offset, page.messages.len()), (0, 0));
            }
            let new = nodes[0].append("r", "new").await.position;
            assert_ne!(new.epoch, old.epoch);
            let page = nodes[0].read("r", ALL).await;
            assert_eq!(messages(&page), [(1, "new".to_owned())]);
        }
    }
}

#[tokio::test]
async fn a_strange_entry_hides_everything_before_it_and_a_strange_head_begins_another_epoch() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let first = nodes[0].append("r", "one").await.position;
    let (epoch, o) = (first.epoch.as_str(), "o");
    let _: String = server.command(&["XADD", LOG, "2-0", epoch, "{"]).await;
    let _: () = server.command(&["HSET", HEAD, o, "2"]).await;
    nodes[0].append("r", "three").await;
    let page = nodes[0].read("r", ALL).await;
    assert_eq!(messages(&page), [(3, "three".to_owned())]);
    assert_eq!(page.position.offset, 3);
    for strange in ["x", "-1", "1.5", "9007199254740991", "9007199254740992"] {
        let before = nodes[0].read("r", ALL).await.position;
        let _: () = server.command(&["HSET", HEAD, o, strange]).await;
        let after = nodes[0].append("r", "x").await.position;
        assert_ne!(after.epoch, before.epoch, "{strange}");
        assert_eq!(after.offset, 1, "{strange}");
    }
    let _: () = server.command(&["HSET", HEAD, o, "9007199254740990"]).await;
    let last = nodes[0].append("r", "x").await.position;
    assert_eq!(last.offset, 9_007_199_254_740_991);
}

#[tokio::test]
async fn readers_that_come_while_redis_is_slow_share_their_reads() {
    let mut server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    for n in 1..=5 {
        nodes[0].append("r", &n.to_string()).await;
    }
    server.reset_commandstats().await;
    server.stop();
    let reads = (0..5_000_u64).map(async |n| {
        let after = n % 5;
        let page = nodes[0].read("r", HistoryQuery { after, ..ALL }).await;
        assert_eq!(page.messages.len() as u64, 5 - after);
    });
    // All of them have asked when Redis continues.
    join(join_all(reads), async { server.cont() }).await;
    let reads = server.commandstats().await["xrevrange"];
    assert!((1..=2).contains(&reads), "{reads}");
}

#[tokio::test]
async fn a_node_checks_its_histories_after_redis_was_away() {
    let mut server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    nodes[0].join("r").await;
    assert!(nodes[0].checks() > 0, "after the first subscription");
    server.kill9();
    until("the node notices it", async || {
        nodes[0].broker.probe().await.err()
    })
    .await;
    let checks = nodes[0].checks();
    server.restart_empty().await;
    let both = "the node checks after it has subscribed, and after it has written its routes";
    until(both, async || {
        (nodes[0].checks() >= checks + 2).then_some(())
    })
    .await;
}

/// Listens as the servers `old-1` and `new-1`, which have these values in their leases and are on `route`.
async fn foreign_servers(server: &Server, [old, new]: [&str; 2], route: &str) -> PubSub {
    let client = ::redis::Client::open(server.url()).expect("an address");
    let mut servers = client.get_async_pubsub().await.expect("a connection");
    for (id, lease) in [("old-1", old), ("new-1", new)] {
        let channel = format!("server:{id}");
        servers.subscribe(channel).await.expect("it listens");
        let lease_key = format!("server_alive:{id}");
        let _: () = server.command(&["SET", &lease_key, lease]).await;
        let _: () = server.command(&["SADD", route, id]).await;
    }
    servers
}

/// The text that `new-1` gets next, and that of `old-1`.
async fn texts_of(servers: &mut PubSub) -> [String; 2] {
    let mut texts = Vec::new();
    for _ in 0..2 {
        let message = servers.on_message().next().await.expect("a message");
        let text: String = message.get_payload().expect("a text");
        texts.push((message.get_channel_name().to_owned(), text));
    }
    texts.sort();
    let texts: Vec<String> = texts.into_iter().map(|(_, text)| text).collect();
    texts.try_into().expect("two texts")
}

#[tokio::test]
async fn a_message_goes_with_its_position_to_nodes_that_understand_it_and_alone_to_others() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let mut others = foreign_servers(&server, ["3", "4"], "room_servers:r").await;
    let appended = nodes[0].append("r", "x").await;
    assert_eq!(appended.nodes, 2);
    let [with_position, alone] = texts_of(&mut others).await;
    let epoch = appended.position.epoch;
    let line = format!("{{\"type\":\"signalbox.kept\",\"payload\":\"{epoch} 1\"}}\n");
    assert_eq!(with_position, format!("{line}{alone}"));
    assert!(alone.starts_with(r#"{"type":"test","#), "{alone}");
}

#[tokio::test]
async fn a_message_with_a_malformed_position_or_without_a_receiver_is_not_delivered() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    nodes[0].connect("u").await;
    nodes[0].join("r").await;
    let to_room = frame(Target::Room("r"), "x");
    let to_all = frame(Target::Everyone, "x");
    for (position, frame) in [
        ("e1 0", &to_room),
        ("e1", &to_room),
        ("e1 5", &to_all),
        ("e1 7", &to_room),
    ] {
        let line = format!("{{\"type\":\"signalbox.kept\",\"payload\":\"{position}\"}}\n");
        let text = line + frame.as_str();
        let listeners: u64 = server.command(&["PUBLISH", "server:n0", &text]).await;
        assert_eq!(listeners, 1);
    }
    until("the last message arrives", async || {
        (!nodes[0].kept("r").is_empty()).then_some(())
    })
    .await;
    assert_eq!(nodes[0].kept("r"), [(7, "x".to_owned())]);
    assert_eq!(nodes[0].got("user u"), Vec::<String>::new());
    assert_eq!(nodes[0].got("room r"), Vec::<String>::new());
}

#[tokio::test]
async fn a_message_of_a_users_history_goes_with_its_position_to_nodes_that_understand_it() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let mut others = foreign_servers(&server, ["5", "6"], "user_servers:u").await;
    let appended = nodes[0].append_to(HistoryName::User("u"), "x").await;
    assert_eq!(appended.nodes, 2);
    let [with_position, alone] = texts_of(&mut others).await;
    let epoch = appended.position.epoch;
    let line = format!("{{\"type\":\"signalbox.kept\",\"payload\":\"{epoch} 1\"}}\n");
    assert_eq!(with_position, format!("{line}{alone}"));
    let entries: Vec<(String, Vec<String>)> = server
        .command(&["XRANGE", "user_history:{u}:log", "-", "+"])
        .await;
    assert_eq!(entries[0].1, [epoch.as_str(), &alone]);
}

#[tokio::test]
async fn a_history_message_of_a_user_who_has_moved_is_forwarded_with_its_number() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    nodes[1].connect("u").await;
    // As if its sender did not know yet that the user is elsewhere.
    let text = frame(Target::User("u"), "x");
    let text = format!(
        "{{\"type\":\"signalbox.kept\",\"payload\":\"e1 7\"}}\n{}",
        text.as_str()
    );
    let listeners: u64 = server.command(&["PUBLISH", "server:n0", &text]).await;
    assert_eq!(listeners, 1);
    let user = HistoryName::User("u");
    until("the message arrives", async || {
        (!nodes[1].kept_of(user).is_empty()).then_some(())
    })
    .await;
    assert_eq!(nodes[1].kept_of(user), [(7, "x".to_owned())]);
    assert_eq!(nodes[0].kept_of(user), []);
}
