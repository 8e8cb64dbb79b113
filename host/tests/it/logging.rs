//! The contents of the log, and what must not be in it.

use serde_json::Value;

use crate::{
    harness::{Answer, Endpoint},
    logged::{json_lines, message},
    process::{Server, Signal},
};

const CONFIG: &str = "[api]\nkeys = [\"an-api-key-of-tests\"]\n";

/// A server that logs JSON at the levels of `filter`.
async fn server(filter: &str) -> Server {
    let environment = [
        ("WSS_PORT", "0"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", filter),
    ];
    Server::start_with(&[], CONFIG, &environment).await
}

/// Stops the server, and returns its whole log.
async fn log_to_the_end(mut server: Server) -> Vec<Value> {
    server.signal(Signal::TERM);
    assert!(server.exit().await.success());
    json_lines(&server.log())
}

async fn disconnect(server: &Endpoint, user: &str) -> Answer {
    let head = format!(
        "POST /api/users/{user}/disconnect HTTP/1.1\r\nAuthorization: Bearer an-api-key-of-tests"
    );
    server.http(&head).await
}

#[tokio::test]
async fn a_line_that_repeats_is_left_out_and_it_is_said_how_often() {
    const TIMES: u64 = 300;
    const LINE: &str = "a user is disconnected by the API";
    let server = server("info").await;
    for _ in 0..TIMES {
        assert_eq!(disconnect(&server, "nobody").await.status, 200);
    }
    let log = log_to_the_end(server).await;
    let written = log.iter().filter(|line| message(line) == LINE).count() as u64;
    let summaries = log.iter().filter(|line| line["target"] == "signalbox::log");
    let counts = summaries.map(|line| {
        let count = line["count"].as_u64().expect("a count");
        assert_eq!(message(line), format!("... and {count} more: {LINE}"));
        assert_eq!(line["level"], "INFO");
        count
    });
    assert_eq!(written + counts.sum::<u64>(), TIMES);
    // Five at once, and one more for each 20 s that this may take on a slow machine.
    assert!((5..TIMES / 2).contains(&written), "{written}");
}

#[tokio::test]
async fn lines_of_a_connection_name_it_and_one_users_can_be_asked_for() {
    let server = server("info,[connection{user=ann}]=debug").await;
    for user in ["bob", "ann"] {
        server.client(user).await.close().await;
    }
    server.until_log("connection ended").await;
    let log = log_to_the_end(server).await;
    let ended: Vec<_> = log
        .iter()
        .filter(|line| message(line) == "connection ended")
        .collect();
    let [line] = ended.as_slice() else {
        panic!("ann's alone: {ended:?}");
    };
    let span = &line["spans"][0];
    assert_eq!(
        (&span["name"], &span["user"]),
        (&"connection".into(), &"ann".into())
    );
    assert_eq!(span["id"], line["connection"]);
}
