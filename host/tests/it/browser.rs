//! The demo page in a real browser.

use std::{path::Path, process::Stdio};

use fantoccini::{Client, ClientBuilder, Locator, wd::Capabilities};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    harness::{Endpoint, PATIENCE},
    redis::until,
};

/// The browser driver, in a separate process.
pub(crate) struct Driver {
    url: String,
    _process: Child,
}

impl Driver {
    pub(crate) async fn start() -> Self {
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

    /// A new browser with the page of `node`, `width` by 900 pixels.
    pub(crate) async fn page(&self, node: &Endpoint, width: u32) -> Page {
        self.page_in(node, width, ColorScheme::Light).await
    }

    /// Like [`Driver::page`], for a user who prefers these colours.
    pub(crate) async fn page_in(&self, node: &Endpoint, width: u32, scheme: ColorScheme) -> Page {
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            format!("--window-size={width},900"),
            format!("--blink-settings=preferredColorScheme={}", scheme as u8),
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

/// The colours that a user prefers, with the number that Chromium gives them.
#[derive(Clone, Copy)]
pub(crate) enum ColorScheme {
    Dark = 0,
    Light = 1,
}

/// The demo page, as somebody uses it.
pub(crate) struct Page(Client);

impl Page {
    pub(crate) async fn enter(&self, name: &str) {
        self.fill("#name", name).await;
        self.press("#sign-in-form button").await;
        self.until_text("#state-text", &format!("Connected as {name}"))
            .await;
    }

    /// Opens the page of `node` again, with this query.
    pub(crate) async fn reopen(&self, node: &Endpoint, query: &str) {
        let url = format!("http://{}/demo/?{query}", node.address);
        self.0.goto(&url).await.expect("the page is served");
    }

    pub(crate) async fn open(&self, with: &str) {
        self.fill("#with", with).await;
        self.press("#open-form button").await;
    }

    pub(crate) async fn say(&self, text: &str) {
        self.until_some("#text:enabled").await;
        self.fill("#text", text).await;
        self.press("#send").await;
    }

    pub(crate) async fn fill(&self, field: &str, text: &str) {
        let field = self.0.find(Locator::Css(field)).await.expect("a field");
        field.clear().await.expect("it can be emptied");
        field.send_keys(text).await.expect("it takes text");
    }

    pub(crate) async fn press(&self, button: &str) {
        let button = self.0.find(Locator::Css(button)).await.expect("a button");
        button.click().await.expect("it can be pressed");
    }

    pub(crate) async fn text(&self, of: &str) -> String {
        // Includes text that is scrolled out of view.
        let script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent).join('\\n')";
        let text = self.0.execute(script, vec![json!(of)]).await;
        text.expect("the page answers")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) async fn until_text(&self, of: &str, text: &str) {
        until(&format!("{of} says {text:?}"), async || {
            self.text(of).await.contains(text).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_some(&self, what: &str) {
        until(what, async || {
            self.0.find(Locator::Css(what)).await.ok().map(drop)
        })
        .await;
    }

    /// The texts of the elements that match, one by one.
    pub(crate) async fn texts(&self, of: &str) -> Vec<String> {
        let text = self.text(of).await;
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the elements that match have exactly these texts.
    pub(crate) async fn until_texts(&self, of: &str, texts: &[&str]) {
        until(&format!("{of} are {texts:?}"), async || {
            (self.texts(of).await == texts).then_some(())
        })
        .await;
    }

    /// Scrolls to the first element that matches.
    pub(crate) async fn look_at(&self, what: &str) {
        let script = "document.querySelector(arguments[0]).scrollIntoView({block: 'center'})";
        let done = self.0.execute(script, vec![json!(what)]).await;
        done.expect("it is there");
    }

    /// Saves a screenshot for people to look at.
    pub(crate) async fn picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
        std::fs::create_dir_all(&folder).expect("a folder");
        let picture = self.0.screenshot().await.expect("a picture");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("it is written");
    }

    /// Checks that the page's own policy blocked nothing and that no script failed.
    pub(crate) async fn close(self) {
        let overflow =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let overflow = self.0.execute(overflow, vec![]).await.expect("a number");
        assert_eq!(overflow, json!(0), "nothing is wider than the window");
        self.0.close().await.expect("it closes");
    }
}
