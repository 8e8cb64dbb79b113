//! A single server.

use std::time::Duration;

use redis::{AsyncCommands, Client, cmd};
use tokio::time::timeout;

use crate::redis::{
    Options, Server, User,
    connections::connect,
    process::{Ended, Process},
    until,
};

#[tokio::test]
async fn a_server_that_is_killed_comes_back_empty_at_the_same_address() {
    let mut server = Server::start().await;
    let url = server.url();
    server.command::<()>(&["SET", "key", "value"]).await;
    server.kill9();
    assert!(!server.is_up());
    let refused = Client::open(url.as_str())
        .expect("a valid address")
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
async fn a_halted_server_answers_once_it_resumes() {
    let mut server = Server::start().await;
    let mut connection = server.connect().await.expect("it accepts clients");
    server.stop();
    let mut ping = Box::pin(async move { connection.ping::<String>().await });
    // It cannot answer, however long this waits.
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
    let client = Client::open(url).expect("a valid address");
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
async fn a_port_in_use_ends_the_start_with_its_own_error() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = dir.path().join("redis.conf");
    std::fs::write(&config, format!("bind 127.0.0.1\nport {}\n", server.port())).expect("a file");
    let mut second = Process::spawn(dir.path(), &config, &[]);
    let ended = until("the second one ends", async || second.ended()).await;
    assert!(matches!(ended, Ended::PortTaken), "{}", second.output());
    std::fs::write(&config, "no-such-setting yes\n").expect("a file");
    let mut third = Process::spawn(dir.path(), &config, &[]);
    match until("the third one ends", async || third.ended()).await {
        Ended::Otherwise(why) => assert!(why.contains("no-such-setting"), "{why}"),
        Ended::PortTaken => panic!("nobody has its port"),
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
        let stranger = connect(&stranger.expect("a valid address")).await;
        let mut stranger = stranger.expect("a connection");
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
    let client = Client::build_with_tls(server.url(), certificates).expect("a valid address");
    let refused = client.get_multiplexed_async_connection().await;
    assert!(refused.is_err_and(|error| error.to_string().contains("certificate")));
    let plain = Client::open(format!("redis://127.0.0.1:{}", server.port()));
    let plain = plain.expect("a valid address");
    assert!(plain.get_multiplexed_async_connection().await.is_err());
}

#[tokio::test]
async fn commandstats_count_only_commands_of_clients() {
    let server = Server::start().await;
    assert_eq!(server.commandstats().await, [].into());
    let mut connection = server.connect().await.expect("it accepts clients");
    for _ in 0..3 {
        let _: () = connection
            .publish("channel", "message")
            .await
            .expect("the command succeeds");
    }
    let _: () = connection
        .set("key", 1)
        .await
        .expect("the command succeeds");
    let _: String = cmd("INFO")
        .query_async(&mut connection)
        .await
        .expect("the command succeeds");
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
