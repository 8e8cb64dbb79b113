//! That the Redis of the tests does what they take for granted.

use std::time::Duration;

use redis::{AsyncCommands, Client, FromRedisValue, cmd};
use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

use super::{Cluster, Options, Sentinels, Server, User, WebsocketApp, until};
use crate::harness::PATIENCE;

#[tokio::test]
async fn a_server_that_is_killed_comes_back_empty_at_the_same_address() {
    let mut server = Server::start().await;
    let url = server.url();
    server.command::<()>(&["SET", "key", "value"]).await;
    server.kill9();
    assert!(!server.is_up());
    let refused = Client::open(url.as_str())
        .expect("a legal address")
        .get_multiplexed_async_connection()
        .await;
    assert!(refused.is_err_and(|error| error.is_connection_refusal()));
    server.restart_empty().await;
    assert_eq!(server.url(), url);
    assert_eq!(server.command::<usize>(&["DBSIZE"]).await, 0);
    server.command::<()>(&["SET", "key", "value"]).await;
    server.restart_empty().await;
    assert_eq!(server.command::<usize>(&["DBSIZE"]).await, 0);
}

#[tokio::test]
async fn a_halted_server_answers_once_it_goes_on() {
    let mut server = Server::start().await;
    let mut connection = server.connect().await.expect("it lets clients in");
    server.stop();
    let mut ping = Box::pin(async move { connection.ping::<String>().await });
    // It cannot answer, however long this is.
    let halted = timeout(Duration::from_millis(200), &mut ping).await;
    assert!(halted.is_err(), "a halted server answered");
    server.cont();
    assert_eq!(ping.await.expect("an answer"), "PONG");
}

#[tokio::test]
async fn a_server_ends_with_its_value() {
    let server = Server::start().await;
    let url = server.url();
    drop(server);
    let client = Client::open(url).expect("a legal address");
    assert!(client.get_multiplexed_async_connection().await.is_err());
}

#[tokio::test]
async fn many_servers_start_at_once() {
    let servers = futures_util::future::join_all((0..8).map(|_| Server::start())).await;
    for server in &servers {
        server.command::<()>(&["SET", "key", &server.url()]).await;
    }
    for server in &servers {
        let value: String = server.command(&["GET", "key"]).await;
        assert_eq!(value, server.url());
    }
}

#[tokio::test]
async fn a_port_that_somebody_else_has_ends_the_start_and_is_told_apart() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = dir.path().join("redis.conf");
    std::fs::write(&config, format!("bind 127.0.0.1\nport {}\n", server.port())).expect("a file");
    let mut second = super::process::Process::spawn(dir.path(), &config, &[]);
    let ended = until("the second one ends", async || second.ended()).await;
    assert!(
        matches!(ended, super::process::Ended::PortTaken),
        "{}",
        second.output()
    );
    std::fs::write(&config, "no-such-setting yes\n").expect("a file");
    let mut third = super::process::Process::spawn(dir.path(), &config, &[]);
    match until("the third one ends", async || third.ended()).await {
        super::process::Ended::Otherwise(why) => assert!(why.contains("no-such-setting"), "{why}"),
        super::process::Ended::PortTaken => panic!("nobody has its port"),
    }
}

#[tokio::test]
async fn a_password_and_a_user_are_asked_for() {
    for user in [
        User {
            name: "default",
            password: "secret",
        },
        User {
            name: "app",
            password: "other",
        },
    ] {
        let server = Server::start_with(Options {
            user: Some(user),
            ..Options::default()
        })
        .await;
        assert_eq!(server.command::<String>(&["PING"]).await, "PONG");
        assert_eq!(
            server.command::<String>(&["ACL", "WHOAMI"]).await,
            user.name
        );
        let stranger = Client::open(format!("redis://127.0.0.1:{}", server.port()));
        let mut stranger = stranger
            .expect("a legal address")
            .get_multiplexed_async_connection()
            .await
            .expect("a connection");
        let refused = stranger.ping::<String>().await;
        assert!(refused.is_err_and(|error| error.code() == Some("NOAUTH")));
    }
}

#[tokio::test]
async fn tls_is_spoken_by_a_certificate_of_the_authority_and_by_no_other() {
    let options = Options {
        tls: true,
        user: Some(User {
            name: "app",
            password: "secret",
        }),
        ..Options::default()
    };
    let [server, stranger] = [
        Server::start_with(options.clone()).await,
        Server::start_with(options).await,
    ];
    assert!(server.url().starts_with("rediss://app:secret@"));
    assert_eq!(server.command::<String>(&["PING"]).await, "PONG");
    let ca = std::fs::read(stranger.ca_file()).expect("a file");
    let certificates = redis::TlsCertificates {
        client_tls: None,
        root_cert: Some(ca),
    };
    let client = Client::build_with_tls(server.url(), certificates).expect("a legal address");
    let refused = client.get_multiplexed_async_connection().await;
    assert!(refused.is_err_and(|error| error.to_string().contains("certificate")));
    let plain = Client::open(format!("redis://127.0.0.1:{}", server.port()));
    let plain = plain.expect("a legal address");
    assert!(plain.get_multiplexed_async_connection().await.is_err());
}

#[tokio::test]
async fn commandstats_count_what_clients_say_and_nothing_else() {
    let server = Server::start().await;
    assert_eq!(server.commandstats().await, [].into());
    let mut connection = server.connect().await.expect("it lets clients in");
    for _ in 0..3 {
        let _: () = connection
            .publish("channel", "message")
            .await
            .expect("it takes it");
    }
    let _: () = connection.set("key", 1).await.expect("it takes it");
    let _: String = cmd("INFO")
        .query_async(&mut connection)
        .await
        .expect("it tells");
    let counts = |pairs: &[(&str, u64)]| {
        let pairs = pairs.iter();
        pairs
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    };
    let expected = counts(&[("info", 1), ("publish", 3), ("set", 1)]);
    assert_eq!(server.commandstats().await, expected);
    assert_eq!(server.commandstats().await, expected);
    server.reset_commandstats().await;
    assert_eq!(server.commandstats().await, [].into());
    server.command::<()>(&["GET", "key"]).await;
    assert_eq!(server.commandstats().await, counts(&[("get", 1)]));
}

#[tokio::test]
async fn a_cluster_spreads_the_slots_over_three_masters_with_a_replica_each() {
    let cluster = Cluster::start().await;
    for (slot, master) in [
        (0, 0),
        (5460, 0),
        (5461, 1),
        (10921, 1),
        (10922, 2),
        (16383, 2),
    ] {
        assert_eq!(cluster.master_of(slot).await, master, "slot {slot}");
        assert_eq!(cluster.replica_of(master).await, Some(master + 3));
    }
    assert_eq!(cluster.slot_of("123456789").await, 12739);
    assert_eq!(cluster.slot_of("a{123456789}b").await, 12739);
    assert_eq!(cluster.urls().split(',').count(), 6);
    let mut connection = cluster.connect().await;
    for number in 0..100 {
        let _: () = connection
            .set(format!("key:{number}"), number)
            .await
            .expect("it takes it");
    }
    let mut keys = 0;
    for master in 0..3 {
        let held: usize = cluster.node(master).command(&["DBSIZE"]).await;
        assert!(held > 0, "master {master} holds nothing");
        keys += held;
    }
    assert_eq!(keys, 100);
}

#[tokio::test]
async fn a_dead_master_of_a_cluster_is_failed_over_to_its_replica_and_comes_back_as_one() {
    let mut cluster = Cluster::start().await;
    let slot = cluster.slot_of("key").await;
    let dead = cluster.master_of(slot).await;
    let heir = cluster.replica_of(dead).await.expect("it has a replica");
    let mut connection = cluster
        .node(dead)
        .connect()
        .await
        .expect("it lets clients in");
    let _: () = connection.set("key", "value").await.expect("it takes it");
    let copies: usize = cmd("WAIT")
        .arg(1)
        .arg(0)
        .query_async(&mut connection)
        .await
        .expect("it waits");
    assert_eq!(copies, 1);
    cluster.kill(dead);
    cluster.until_settled().await;
    assert_eq!(cluster.master_of(slot).await, heir);
    assert_eq!(cluster.replica_of(heir).await, None);
    let value: String = cluster.node(heir).command(&["GET", "key"]).await;
    assert_eq!(value, "value");
    cluster.restart(dead).await;
    cluster.until_settled().await;
    assert_eq!(cluster.replica_of(heir).await, Some(dead));
}

#[tokio::test]
async fn a_halted_master_of_a_cluster_is_failed_over_and_gives_way_when_it_goes_on() {
    let mut cluster = Cluster::start().await;
    let heir = cluster.replica_of(1).await.expect("it has a replica");
    cluster.stop(1);
    cluster.until_settled().await;
    assert_eq!(cluster.master_of(6000).await, heir);
    cluster.cont(1);
    cluster.until_settled().await;
    assert_eq!(cluster.master_of(6000).await, heir);
    assert_eq!(cluster.replica_of(heir).await, Some(1));
}

#[tokio::test]
async fn a_slot_of_a_cluster_moves_with_its_keys() {
    let cluster = Cluster::start().await;
    let mut connection = cluster.connect().await;
    let key = |number: u32| format!("{{tag}}:{number}");
    for number in 0..250 {
        let _: () = connection
            .set(key(number), number)
            .await
            .expect("it takes it");
    }
    let slot = cluster.slot_of("tag").await;
    let from = cluster.master_of(slot).await;
    let to = (from + 1) % 3;
    cluster.move_slot(slot, to).await;
    assert_eq!(cluster.master_of(slot).await, to);
    let count = ["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()].map(str::to_owned);
    let count = count.each_ref().map(String::as_str);
    assert_eq!(cluster.node(to).command::<usize>(&count).await, 250);
    assert_eq!(cluster.node(from).command::<usize>(&count).await, 0);
    for number in 0..250 {
        let value: u32 = connection.get(key(number)).await.expect("it is found");
        assert_eq!(value, number);
    }
    let moved = cluster
        .node(from)
        .try_command::<String>(&["GET", &key(0)])
        .await;
    assert!(moved.is_err_and(|error| error.code() == Some("MOVED")));
}

#[tokio::test]
async fn sentinels_fail_a_dead_master_over_and_make_it_a_replica_when_it_is_back() {
    let mut sentinels = Sentinels::start().await;
    assert_eq!(sentinels.urls().split(',').count(), 3);
    let before = sentinels.master().await.port();
    sentinels
        .master()
        .await
        .command::<()>(&["SET", "key", "value"])
        .await;
    sentinels.until_replicated().await;
    let copies: usize = sentinels.master().await.command(&["WAIT", "1", "0"]).await;
    assert_eq!(copies, 1);
    sentinels.kill_master().await;
    let master = sentinels.master().await;
    assert_ne!(master.port(), before);
    assert_eq!(master.command::<String>(&["GET", "key"]).await, "value");
    sentinels.restart_killed().await;
    sentinels.until_replicated().await;
    assert_ne!(sentinels.master().await.port(), before);
}

#[tokio::test]
async fn sentinels_fail_over_when_they_are_told_to() {
    let sentinels = Sentinels::start().await;
    let before = sentinels.master().await.port();
    sentinels.fail_over().await;
    let master = sentinels.master().await;
    assert_ne!(master.port(), before);
    master.command::<()>(&["SET", "key", "value"]).await;
    let sentinel = Client::open(sentinels.urls().split(',').next().expect("an address"));
    let mut sentinel = sentinel
        .expect("a legal address")
        .get_multiplexed_async_connection()
        .await
        .expect("a connection");
    let (host, port): (String, u16) = cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(sentinels.master_name())
        .query_async(&mut sentinel)
        .await
        .expect("an address");
    assert_eq!((host.as_str(), port), ("127.0.0.1", master.port()));
}

#[tokio::test]
async fn servers_of_the_old_kind_exchange_messages_both_ways() {
    let redis = Server::start().await;
    exchange(&redis.url()).await;
}

#[tokio::test]
async fn servers_of_the_old_kind_exchange_messages_through_a_cluster() {
    let cluster = Cluster::start().await;
    exchange(&cluster.urls()).await;
}

async fn exchange(urls: &str) {
    let [a, b] = [
        WebsocketApp::start(urls).await,
        WebsocketApp::start(urls).await,
    ];
    assert_ne!(a.id(), b.id());
    let mut ann = a.connect("ann").await;
    let mut bob = b.connect("bob").await;
    assert!(
        a.send("ann", "bob", "chat_message", &json!({"text": "hi"}))
            .await
    );
    let to_bob = message(&mut bob).await;
    assert!(
        to_bob["timestamp"]
            .as_str()
            .is_some_and(|time| humantime::parse_rfc3339(time).is_ok()),
        "{to_bob}"
    );
    let expected = json!({
        "type": "chat_message",
        "payload": {"text": "hi"},
        "receiverID": "bob",
        "senderId": "ann",
        "timestamp": to_bob["timestamp"],
    });
    assert_eq!(to_bob, expected);
    assert!(b.send("bob", "ann", "notification", &json!(1)).await);
    assert_eq!(message(&mut ann).await["type"], "notification");
    assert!(a.send("ann", "ann", "note", &json!(null)).await);
    assert_eq!(message(&mut ann).await["senderId"], "ann");
    assert!(!a.send("ann", "nobody", "note", &json!(null)).await);
    b.disconnect("bob").await;
    assert!(!a.send("ann", "bob", "note", &json!(null)).await);
    assert!(bob.try_recv().is_err());
}

#[tokio::test]
async fn a_server_of_the_old_kind_writes_the_keys_of_its_users() {
    let redis = Server::start().await;
    let app = WebsocketApp::start_refreshing_every(Duration::from_millis(10), &redis.url()).await;
    let _first = app.connect("ann").await;
    let _second = app.connect("ann").await;
    let online = format!("user_online:ann:{}", app.id());
    let servers = || ask::<Vec<String>>(&redis, &["SMEMBERS", "user_servers:ann"]);
    assert_eq!(servers().await, [app.id()]);
    assert_eq!(ask::<String>(&redis, &["GET", &online]).await, "1");
    let cut = ask::<bool>(&redis, &["EXPIRE", &online, "20"]).await;
    assert!(cut);
    until("the user's time is refreshed", async || {
        let ttl: i64 = redis.command(&["TTL", &online]).await;
        assert!((1..=60).contains(&ttl), "{ttl}");
        (ttl > 50).then_some(())
    })
    .await;
    // One of two connections is enough to lose the route: so it is with the original.
    app.disconnect("ann").await;
    assert_eq!(servers().await, [""; 0]);
    assert!(!ask::<bool>(&redis, &["EXISTS", &online]).await);
}

async fn ask<T: FromRedisValue>(redis: &Server, words: &[&str]) -> T {
    redis.command(words).await
}

#[tokio::test]
async fn a_server_of_the_old_kind_subscribes_anew_and_hears_what_is_for_all() {
    let mut redis = Server::start().await;
    let app = WebsocketApp::start(&redis.url()).await;
    let mut ann = app.connect("ann").await;
    let mut bob = app.connect("bob").await;
    redis.restart_empty().await;
    until("it has subscribed again", async || {
        let heard: usize = redis
            .command(&["PUBLISH", "broadcast", r#"{"type":"news"}"#])
            .await;
        (heard == 1).then_some(())
    })
    .await;
    assert_eq!(message(&mut ann).await["type"], "news");
    assert_eq!(message(&mut bob).await["type"], "news");
    redis
        .command::<()>(&[
            "PUBLISH",
            "broadcast",
            r#"{"type":"word","receiverID":"bob"}"#,
        ])
        .await;
    assert_eq!(message(&mut bob).await["type"], "word");
    assert!(ann.try_recv().is_err());
    // What the crash took, only a new connection writes again.
    assert!(!app.send("bob", "ann", "note", &json!(null)).await);
    assert!(redis.output().contains("Ready to accept connections"));
}

async fn message(receiver: &mut UnboundedReceiver<String>) -> Value {
    let text = timeout(PATIENCE, receiver.recv())
        .await
        .expect("no message came")
        .expect("the connection is there");
    serde_json::from_str(&text).expect("a message is JSON")
}
