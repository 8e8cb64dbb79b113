//! The demo page, in a real browser.

use std::{path::Path, process::Stdio};

use fantoccini::{Client, ClientBuilder, Locator, wd::Capabilities};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use signalbox::plugin::Sha256;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    harness::{Node, PATIENCE, WITH_CHAT, chat_plugin, replace, with_plugin_cache},
    redis::until,
};

/// The browser driver, in a separate process.
struct Driver {
    url: String,
    _process: Child,
}

impl Driver {
    async fn start() -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is there: `cargo xtask test` installs it");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let port = async {
            loop {
                let line = lines.next_line().await.expect("text").expect("a port");
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').to_owned();
                }
            }
        };
        let port = timeout(PATIENCE, port).await.expect("it starts");
        Self {
            url: format!("http://127.0.0.1:{port}"),
            _process: process,
        }
    }

    /// A new browser with one page, `width` by 800 pixels.
    async fn page(&self, node: &Node, width: u32) -> Page {
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            format!("--window-size={width},800"),
        ];
        let options = json!({"args": arguments});
        let capabilities = Capabilities::from_iter([
            ("goog:chromeOptions".to_owned(), options),
            ("goog:loggingPrefs".to_owned(), json!({"browser": "ALL"})),
        ]);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&self.url)
            .await
            .expect("a browser starts");
        client
            .goto(&format!("http://{}/demo", node.address))
            .await
            .expect("the page is served");
        Page(client)
    }
}

struct Page(Client);

impl Page {
    async fn enter(&self, name: &str) {
        self.fill("#name", name).await;
        self.press("#sign-in-form button").await;
        self.until_text("#state-text", &format!("Connected as {name}"))
            .await;
    }

    async fn open(&self, with: &str) {
        self.fill("#with", with).await;
        self.press("#open-form button").await;
    }

    async fn say(&self, text: &str) {
        self.until_some("#text:enabled").await;
        self.fill("#text", text).await;
        self.press("#send").await;
    }

    async fn fill(&self, field: &str, text: &str) {
        let field = self.0.find(Locator::Css(field)).await.expect("a field");
        field.clear().await.expect("it can be emptied");
        field.send_keys(text).await.expect("it takes text");
    }

    async fn press(&self, button: &str) {
        let button = self.0.find(Locator::Css(button)).await.expect("a button");
        button.click().await.expect("it can be pressed");
    }

    async fn text(&self, of: &str) -> String {
        // Includes text that is scrolled out of view.
        let script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent).join('\\n')";
        let text = self.0.execute(script, vec![json!(of)]).await;
        text.expect("the page answers")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    async fn until_text(&self, of: &str, text: &str) {
        until(&format!("{of} says {text:?}"), async || {
            self.text(of).await.contains(text).then_some(())
        })
        .await;
    }

    async fn until_some(&self, what: &str) {
        until(what, async || {
            self.0.find(Locator::Css(what)).await.ok().map(drop)
        })
        .await;
    }

    /// Saves a screenshot for people to look at.
    async fn picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
        std::fs::create_dir_all(&folder).expect("a folder");
        let picture = self.0.screenshot().await.expect("a picture");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("it is written");
    }

    /// Checks that the page's own policy blocked nothing and that no script failed.
    async fn close(self) {
        let overflow =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let overflow = self.0.execute(overflow, vec![]).await.expect("a number");
        assert_eq!(overflow, json!(0), "nothing is wider than the window");
        self.0.close().await.expect("it closes");
    }
}

/// Another version of the chat plugin: with a custom section that nobody reads.
fn another_chat() -> Vec<u8> {
    let mut bytes = std::fs::read(chat_plugin()).expect("the plugin is built");
    // A custom section: its ID, its length, and its name with the length of the name.
    bytes.extend([0, 5, 4]);
    bytes.extend(b"else");
    bytes
}

fn config(more: &str) -> String {
    format!(
        "[server]\nnode_id = \"node-1\"\ntrace_plugins = true\n[demo]\nenabled = true\n{WITH_CHAT}config = {{ blocked_words = [{more}] }}\n"
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
    ann.open("bob").await;
    bob.open("ann").await;
    ann.say("darn it").await;
    ann.until_text(".message.own .fate", "delivered").await;
    bob.until_text(".message .what", "darn it").await;
    bob.say("/me waves").await;
    ann.until_text(".message.me .what", "* bob waves").await;
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
    ann.open("#lobby").await;
    ann.until_text(".notice", "You are a member of this room")
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
async fn the_page_is_there_only_where_it_is_enabled_and_lets_nothing_in() {
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
