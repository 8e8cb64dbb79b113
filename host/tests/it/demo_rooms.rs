//! Rooms on the demo page, in a real browser: their users, and their messages after the server was away.

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    browser::{ColorScheme, Driver, Page},
    harness::{Endpoint, Node},
    process::{self, Signal},
    redis::{Server, free_port, until},
    redis_nodes::{self, Outcome, Peer, until_ready},
};

const DEMO: &str = "[demo]\nenabled = true\n";

/// The rule of `platform.toml`, with `size` messages.
fn rule(size: usize) -> String {
    format!(
        "[[rooms]]\nmatch = \"*\"\nhistory = {{ size = {size}, time = \"1h\" }}\npresence = true\n\
         [presence]\nflush = \"10ms\"\ngrace = \"0s\"\n"
    )
}

/// A server that can be started again at the same address.
struct Restarting {
    config: String,
    port: String,
    server: process::Server,
}

impl Restarting {
    async fn start(config: String) -> Self {
        // Another process may take the port first; it is the only one that can be known before.
        let port = free_port().to_string();
        let server = Self::serve(&config, &port).await;
        Self {
            config,
            port,
            server,
        }
    }

    async fn serve(config: &str, port: &str) -> process::Server {
        let server = process::Server::start_with(&[], config, &[("WSS_PORT", port)]).await;
        until_ready(&server).await;
        server
    }

    async fn end(&mut self, signal: Signal) {
        self.server.signal(signal);
        self.server.ended().await;
    }

    async fn again(&mut self) {
        self.server = Self::serve(&self.config, &self.port).await;
    }
}

/// Lines that somebody says in `#lobby`, each once.
struct Speaker {
    peer: Peer,
    said: Vec<String>,
}

impl Speaker {
    async fn join(node: &Endpoint) -> Self {
        let mut peer = Peer::connect(node, "speaker").await;
        peer.join("lobby").await;
        Self {
            peer,
            said: Vec::new(),
        }
    }

    async fn say(&mut self, count: usize) {
        for _ in 0..count {
            let line = format!("line {}", self.said.len() + 1);
            let message = json!({"type": "chat_message", "room": "lobby", "payload": line});
            until("the line is accepted", async || {
                let outcome = self.peer.ask_json(message.clone()).await;
                (outcome == Outcome::Delivered).then_some(())
            })
            .await;
            self.said.push(line);
        }
    }

    /// Waits until `page` shows the last `count` lines, and then checks that it shows each once, in order.
    async fn until_shown(&self, page: &Page, count: usize) {
        let expected: Vec<&str> = self.said.iter().map(String::as_str).collect();
        let expected = &expected[expected.len() - count..];
        page.until_texts(".message:not(.own) .what", expected).await;
    }
}

async fn enter(page: &Page, name: &str) {
    page.enter(name).await;
    page.open("#lobby").await;
    page.until_text(".notice", "You are a member of this room")
        .await;
}

const PRESENT: &str = "#present-list li";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_the_members_and_last_messages_of_the_room() {
    let node = Node::start(&format!("{DEMO}{}", rule(100))).await;
    let driver = Driver::start().await;
    let (ann, bob) = tokio::join!(
        driver.page(&node, 1280),
        driver.page_in(&node, 390, ColorScheme::Dark)
    );
    enter(&ann, "ann").await;
    ann.until_texts(PRESENT, &["ann (you)"]).await;
    ann.until_text("#present-total", "1 here").await;
    for line in ["Hello everybody", "Is anybody here?"] {
        ann.say(line).await;
        ann.until_text(".message.own:last-of-type .fate", "delivered")
            .await;
    }
    enter(&bob, "bob").await;
    bob.until_texts(
        ".message:not(.own) .what",
        &["Hello everybody", "Is anybody here?"],
    )
    .await;
    ann.until_texts(PRESENT, &["ann (you)", "bob"]).await;
    bob.until_texts(PRESENT, &["ann", "bob (you)"]).await;
    bob.until_text("#present-total", "2 here").await;
    bob.say("I am").await;
    ann.until_texts(".message:not(.own) .what", &["I am"]).await;
    ann.picture("room").await;
    bob.press("#present summary").await;
    bob.picture("room-phone-dark").await;
    bob.close().await;
    ann.until_texts(PRESENT, &["ann (you)"]).await;
    // The same user comes back, and sees the line of the earlier page as an own one, once.
    let again = driver.page(&node, 390).await;
    enter(&again, "bob").await;
    again.until_texts(".message.own .what", &["I am"]).await;
    again.picture("room-phone").await;
    again.close().await;
    ann.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_limit_a_page_shows_only_how_many_there_are() {
    let config = format!("{DEMO}{}members_max = 3\n", rule(100));
    let node = Node::start(&config).await;
    let driver = Driver::start().await;
    let ann = driver.page(&node, 1280).await;
    enter(&ann, "ann").await;
    ann.until_texts(PRESENT, &["ann (you)"]).await;
    let others = (0..4).map(async |index| {
        let mut peer = Peer::connect(&node, &format!("user{index}")).await;
        peer.join("lobby").await;
        peer
    });
    let mut others = join_all(others).await;
    ann.until_text("#present-total", "5 here").await;
    ann.until_texts(PRESENT, &[]).await;
    for other in others.drain(..3) {
        other.close().await;
    }
    ann.until_text("#present-total", "2 here").await;
    ann.until_texts(PRESENT, &["ann (you)", "user3"]).await;
    ann.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_shows_each_line_once_after_its_server_was_killed_and_restarted() {
    let redis = Server::start().await;
    let config = |name: &str| {
        let rules = format!("{DEMO}{}", rule(100));
        redis_nodes::config(name, &redis.url(), &rules)
    };
    let other = Node::start(&config("other")).await;
    until_ready(&other).await;
    let mut server = Restarting::start(config("behind-the-page")).await;
    let driver = Driver::start().await;
    let page = driver.page(&server.server, 1280).await;
    let mut speaker = Speaker::join(&other).await;
    enter(&page, "ann").await;
    page.until_texts(PRESENT, &["ann (you)", "speaker"]).await;
    speaker.say(3).await;
    speaker.until_shown(&page, 3).await;
    page.say("from ann").await;
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        server.end(signal).await;
        page.until_text("#state-text", "Connection lost").await;
        speaker.say(5).await;
        server.again().await;
        speaker.say(2).await;
        page.until_text("#state-text", "Connected as ann").await;
        speaker.until_shown(&page, speaker.said.len()).await;
        page.until_texts(".message.own .what", &["from ann"]).await;
        page.until_texts(PRESENT, &["ann (you)", "speaker"]).await;
    }
    assert_eq!(page.texts(".notice.gap").await, [""; 0]);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_was_away_too_long_shows_a_notice_and_the_last_lines() {
    let redis = Server::start().await;
    let config = |name: &str| {
        let rules = format!("{DEMO}{}", rule(5));
        redis_nodes::config(name, &redis.url(), &rules)
    };
    let other = Node::start(&config("other")).await;
    until_ready(&other).await;
    let mut server = Restarting::start(config("behind-the-page")).await;
    let driver = Driver::start().await;
    let page = driver.page(&server.server, 390).await;
    let mut speaker = Speaker::join(&other).await;
    enter(&page, "ann").await;
    speaker.say(2).await;
    speaker.until_shown(&page, 2).await;
    server.end(Signal::KILL).await;
    page.until_text("#state-text", "Connection lost").await;
    speaker.say(9).await;
    server.again().await;
    page.until_text(".notice.gap", "longer than messages are kept")
        .await;
    let shown = [1, 2, 7, 8, 9, 10, 11].map(|number| format!("line {number}"));
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    page.until_texts(".message .what", &shown).await;
    page.look_at(".notice.gap").await;
    page.picture("gap").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_keeps_its_lines_if_the_server_forgot_them_and_marks_the_gap() {
    let config = format!("[limits]\nmessages_per_second = 0\n{DEMO}{}", rule(100));
    let mut server = Restarting::start(config).await;
    let driver = Driver::start().await;
    let page = driver.page(&server.server, 1280).await;
    enter(&page, "ann").await;
    page.say("before").await;
    page.until_text(".message.own .fate", "delivered").await;
    server.end(Signal::KILL).await;
    server.again().await;
    page.until_texts(
        ".notice.gap",
        &["Messages may be missing here: the server lost the history of this room."],
    )
    .await;
    let mut speaker = Speaker::join(&server.server).await;
    speaker.say(2).await;
    page.until_texts(".message .what", &["before", "line 1", "line 2"])
        .await;
    page.until_texts(PRESENT, &["ann (you)", "speaker"]).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_written_without_a_server_is_sent_once_it_is_back() {
    let mut server = Restarting::start(format!("{DEMO}{}", rule(100))).await;
    let driver = Driver::start().await;
    let page = driver.page(&server.server, 1280).await;
    page.reopen(&server.server, "debug").await;
    enter(&page, "ann").await;
    page.until_text("#figures", "Stateconnected").await;
    server.end(Signal::KILL).await;
    page.until_text("#state-text", "Connection lost").await;
    page.say("without a server").await;
    page.until_text(".message.own .fate", "waits for a connection")
        .await;
    page.until_text("#figures", "Queued messages1").await;
    page.picture("queued").await;
    server.again().await;
    page.until_text(".message.own .fate", "delivered").await;
    for figure in ["Reconnects1", "Queued messages0", "Gaps1"] {
        page.until_text("#figures", figure).await;
    }
    page.until_texts(".message.own .what", &["without a server"])
        .await;
    page.close().await;
}
