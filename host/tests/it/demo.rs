//! The demo page, in a real browser.

use signalbox::plugin::Sha256;

use crate::{
    browser::Driver,
    harness::{Node, WITH_CHAT, chat_plugin, replace, with_plugin_cache},
    redis::until,
};

/// Another version of the chat plugin: with a custom section that nobody reads.
fn another_chat() -> Vec<u8> {
    let mut bytes = std::fs::read(chat_plugin()).expect("the plugin is built");
    // A custom section: its ID, its length, and its name with the length of the name.
    bytes.extend([0, 5, 4]);
    bytes.extend(b"else");
    bytes
}

/// The rule of `platform.toml`.
const ROOMS: &str =
    "[[rooms]]\nmatch = \"*\"\nhistory = { size = 100, time = \"1h\" }\npresence = true\n";

fn config(more: &str) -> String {
    format!(
        "[server]\nnode_id = \"node-1\"\ntrace_plugins = true\n[demo]\nenabled = true\n{ROOMS}{WITH_CHAT}config = {{ blocked_words = [{more}] }}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pages_chat_and_see_a_swap_without_a_reconnect() {
    let node = Node::start(&config("")).await;
    let driver = Driver::start().await;
    let (ann, bob) = tokio::join!(driver.page(&node, 1280), driver.page(&node, 390));
    ann.picture("sign-in").await;
    ann.enter("ann").await;
    bob.enter("bob").await;
    ann.open("#lobby").await;
    bob.open("#lobby").await;
    for page in [&ann, &bob] {
        page.until_text("#present-total", "2 here").await;
    }
    ann.say("darn it").await;
    ann.until_text(".message.own .fate", "delivered").await;
    bob.until_text(".message .what", "darn it").await;
    bob.say("/me waves").await;
    ann.until_text(".message.me .what", "* bob waves").await;
    bob.until_text(".message.own .fate", "ms").await;
    bob.until_texts(".message.own .what", &["* bob waves"])
        .await;
    ann.say("   ").await;
    ann.until_text(".message.refused .fate", "blank").await;
    ann.picture("before").await;
    bob.picture("phone").await;

    // The file and the configuration change, and both pages show it.
    let new = another_chat();
    replace(node.dir.path(), "chat.wasm", &new);
    let changed = with_plugin_cache(&config("\"darn\""));
    replace(node.dir.path(), "platform.toml", changed.as_bytes());
    let version = &Sha256::of(&new).label();
    let old = &Sha256::of(&std::fs::read(chat_plugin()).expect("the plugin")).label();
    ann.until_text(".message.own .fate", old).await;
    for page in [&ann, &bob] {
        page.until_text("#versions .version", version).await;
        page.until_text("#swaps li .version", version).await;
    }
    until("the new configuration takes effect", async || {
        ann.say("darn it").await;
        let got = bob.text(".message:not(.own) .what").await;
        got.contains("**** it").then_some(())
    })
    .await;
    ann.until_text(".message.own .fate", version).await;
    for page in [&ann, &bob] {
        page.until_text(".notice.swap", "Nobody was disconnected")
            .await;
        assert_eq!(page.text("#reconnects").await, "0");
    }
    // This screenshot is `docs/demo.png`.
    ann.picture("swapped").await;
    ann.open("bob").await;
    bob.open("ann").await;
    ann.say("just to you").await;
    ann.until_text(".message.own .fate", "delivered").await;
    bob.until_texts(".message:not(.own) .what", &["just to you"])
        .await;
    ann.picture("after").await;
    bob.picture("phone-after").await;
    node.terminate();
    ann.until_text("#state-text", "Connection lost").await;
    ann.picture("lost").await;
    ann.close().await;
    bob.close().await;
}

#[tokio::test]
async fn the_page_exists_only_if_enabled_and_has_a_strict_policy() {
    let without = Node::start("").await;
    assert_eq!(without.get("/demo/").await.0, 404);
    let node = Node::start(&config("")).await;
    let page = node.http("GET /demo/ HTTP/1.1").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let (status, plugins) = node.get("/demo/plugins.json").await;
    assert_eq!(status, 200);
    assert!(plugins.contains("\"name\":\"chat\""), "{plugins}");
    for secret in ["path", "config", "last_error"] {
        assert!(!plugins.contains(secret), "{plugins}");
    }
    assert_eq!(
        node.get("/demo/options.json").await.1,
        r#"{"auth":"none","socket":"/ws"}"#
    );
}
