//! The live version is live again after a restart, however the previous process ended.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    admin::KEY,
    admin_plugins::{STAMP, config, mark, plugin, post, push, states, swaps},
    guests::{component, stamped},
    harness::{Endpoint, PATIENCE},
    logged::{Logged, message},
    redis::until,
};

async fn start() -> Logged {
    Logged::start(&[("stamp.wasm", &stamped("1"))], &config("a")).await
}

async fn stamp(node: &Endpoint) -> String {
    mark(&mut node.reachable("ann").await).await
}

/// A file in the plugin's version folder.
fn kept(server: &Logged, name: &str) -> PathBuf {
    let folder = server.dir.path().join(".signalbox/versions/stamp");
    folder.join(name)
}

fn kept_components(server: &Logged) -> usize {
    let files = std::fs::read_dir(kept(server, "")).expect("the folder of the versions");
    let paths = files.map(|file| file.expect("a file").path());
    paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "wasm"))
        .count()
}

/// Waits until the current state is on disk, for changes that no caller waited for.
pub(crate) async fn until_kept(server: &Logged) {
    let shown = plugin(server).await;
    let live = shown["live"].as_str().expect("a live version");
    let taken_back = shown["versions"].as_array().expect("versions").iter();
    let taken_back = taken_back.filter(|version| version["rolled_back_because"].is_string());
    let taken_back = taken_back.count();
    until("it is kept", async || {
        let state = std::fs::read(kept(server, "state.json")).ok()?;
        let state: Value = serde_json::from_slice(&state).expect("a state is whole");
        let is_live = state["live"]["sha256"].as_str()?.starts_with(live);
        let all = state["rolled_back"].as_array()?.len() >= taken_back;
        (is_live && all).then_some(())
    })
    .await;
}

fn tear(path: &Path) {
    let bytes = std::fs::read(path).expect("the file is there");
    std::fs::write(path, &bytes[..bytes.len() / 2]).expect("the file is written");
}

#[tokio::test]
async fn after_a_kill_the_pushed_version_is_live_and_can_be_rolled_back() {
    let server = start().await;
    let first = plugin(&server).await["live"].clone();
    for number in ["2", "3"] {
        assert_eq!(push(&server, &stamped(number)).await.status, 200);
    }
    let before = plugin(&server).await;
    assert_eq!(before["not_kept"], Value::Null);
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000003");
    let shown = plugin(&server).await;
    assert_eq!(shown["held"], true);
    assert_eq!(states(&shown), ["live", "retired", "retired"]);
    for field in ["version", "sha256", "since", "trigger"] {
        for index in 0..3 {
            let (was, is) = (&before["versions"][index], &shown["versions"][index]);
            assert_eq!(was[field], is[field], "{field} of {index}");
        }
    }
    // The file is still held, and each earlier live version is available for a rollback.
    assert_eq!(post(&server, "reload").await.body["reason"], "held");
    assert_eq!(post(&server, "rollback").await.status, 200);
    assert_eq!(stamp(&server).await, "a:STAMP-0000000002");
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000002");
    assert_eq!(plugin(&server).await["versions"][0]["trigger"], "rollback");
    let to_first = format!("rollback?to={}", first.as_str().expect("a version"));
    assert_eq!(post(&server, &to_first).await.status, 200);
    assert_eq!(stamp(&server).await, "a:STAMP-0000000001");
    let shown = plugin(&server).await;
    assert_eq!(states(&shown)[0], "probation");
    assert_eq!(shown["versions"].as_array().map(Vec::len), Some(3));
}

/// The steps of a swap in order, and whether a server that crashes there has kept the new version.
const STEPS: [(&str, bool); 13] = [
    ("admitted", false),
    ("live", false),
    ("component-half", false),
    ("component-written", false),
    ("component-synced", false),
    ("component-renamed", false),
    ("component-kept", false),
    ("state-half", false),
    ("state-written", false),
    ("state-synced", false),
    ("state-renamed", true),
    ("state-kept", true),
    ("pruned", true),
];

/// Pushes to a server that ends before it answers.
async fn push_in_vain(server: &Endpoint, bytes: &[u8]) {
    let head = format!(
        "PUT {STAMP} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    let mut stream = server.tcp().await;
    let request = [head.as_bytes(), bytes].concat();
    stream.write_all(&request).await.expect("it is sent");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // Reset or closed: that is up to the kernel.
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the server ends");
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn after_a_kill_at_any_step_of_a_swap_the_next_start_serves_a_version_that_was_live() {
    let config = format!("{}[plugin_versions]\nkeep = 1\n", config("a"));
    for (step, kept_already) in STEPS {
        let server = Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await;
        assert_eq!(push(&server, &stamped("2")).await.status, 200);
        let server = server.restart_with(&[("CRASH_AT", step)]).await;
        push_in_vain(&server, &stamped("3")).await;
        tear(&server.dir.path().join("stamp.wasm"));
        let server = server.start_after_end(&[]).await;
        let expected = if kept_already {
            "a:STAMP-0000000003"
        } else {
            "a:STAMP-0000000002"
        };
        assert_eq!(stamp(&server).await, expected, "{step}");
        // The leftovers of the crash are removed, and the next swap succeeds.
        assert_eq!(push(&server, &stamped("4")).await.status, 200, "{step}");
        assert_eq!(plugin(&server).await["not_kept"], Value::Null, "{step}");
        assert_eq!(kept_components(&server), 2, "{step}");
        assert!(!kept(&server, "state.tmp").exists(), "{step}");
    }
}

#[tokio::test]
async fn a_file_changed_while_the_server_was_down_is_tried_and_the_live_version_stays_if_it_fails()
{
    let server = start().await;
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
    server.replace("stamp.wasm", &stamped("test-fails"));
    // Whether the running server checks it first makes no difference.
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000002");
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000002");
    server.replace("stamp.wasm", &stamped("3"));
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000003");
    assert_eq!(plugin(&server).await["held"], false);
    // From here on the file is followed.
    server.replace("stamp.wasm", &stamped("4"));
    server
        .until_metric(&swaps("live"), |live| live == 2.0)
        .await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000004");
}

#[tokio::test]
async fn a_file_refused_at_start_is_logged_and_shown_with_the_version_that_serves() {
    let server = start().await;
    let live = plugin(&server).await["live"].clone();
    until_kept(&server).await;
    server.signal(crate::process::Signal::KILL);
    server.replace("stamp.wasm", b"broken");
    let server = server.start_after_end(&[]).await;
    let refusal = server.until_line(|line| line["level"] == "ERROR").await;
    assert!(
        message(&refusal).starts_with("plugin refused, the live version stays"),
        "{refusal}"
    );
    assert_eq!(
        (&refusal["live"], &refusal["trigger"]),
        (&live, &json!("start"))
    );
    let shown = plugin(&server).await;
    assert_eq!(shown["live"], live);
    assert_eq!(states(&shown), ["live", "failed"]);
    assert_eq!(stamp(&server).await, "a:STAMP-0000000001");
    assert_eq!(server.get("/ready").await.0, 200);
}

#[tokio::test]
async fn if_the_live_version_is_damaged_too_an_earlier_one_serves() {
    let server = start().await;
    for number in ["2", "3"] {
        assert_eq!(push(&server, &stamped(number)).await.status, 200);
    }
    let third = plugin(&server).await["versions"][0]["sha256"].clone();
    let damaged = format!("{}.wasm", third.as_str().expect("a sha256"));
    tear(&kept(&server, &damaged));
    server.replace("stamp.wasm", b"broken");
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000002");
    let is_failed_start = |line: &Value| message(line).contains("does not start again");
    assert_eq!(server.until_lines(1, is_failed_start).await.len(), 1);
    // A corrupt state counts as no state: the file decides.
    std::fs::write(kept(&server, "state.json"), "{").expect("the state is corrupted");
    server.replace("stamp.wasm", &stamped("4"));
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000004");
}

#[tokio::test]
async fn a_changed_configuration_applies_to_the_live_version_and_not_to_a_skipped_file() {
    let server = start().await;
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
    server.signal(crate::process::Signal::KILL);
    let renamed = config("b")
        + &format!(
            "[plugin_cache]\ndir = {:?}\n",
            crate::harness::plugin_cache()
        );
    server.replace("platform.toml", renamed.as_bytes());
    let server = server.start_after_end(&[]).await;
    assert_eq!(stamp(&server).await, "b:STAMP-0000000002");
    assert_eq!(plugin(&server).await["held"], true);
}

#[tokio::test]
async fn if_versions_cannot_be_stored_the_server_warns_and_continues() {
    let config = format!(
        "{}[plugin_versions]\ndir = \"occupied/versions\"\n",
        config("a")
    );
    let files: [(&str, &[u8]); 2] = [("stamp.wasm", &stamped("1")), ("occupied", b"a file")];
    let server = Logged::start(&files, &config).await;
    let line = server.until_line(|line| line["level"] == "ERROR").await;
    assert!(
        message(&line).contains("versions are not kept") && message(&line).contains("occupied"),
        "{line}"
    );
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
    assert_eq!(stamp(&server).await, "a:STAMP-0000000002");
    let why = plugin(&server).await["not_kept"].clone();
    assert!(
        why.as_str().is_some_and(|why| why.contains("occupied")),
        "{why}"
    );
    assert_eq!(post(&server, "rollback").await.status, 200);
    // Once there is room, the next change is kept, along with the one that could not be kept before.
    std::fs::remove_file(server.dir.path().join("occupied")).expect("the file goes");
    assert_eq!(push(&server, &stamped("3")).await.status, 200);
    assert_eq!(plugin(&server).await["not_kept"], Value::Null);
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000003");
}

#[tokio::test]
async fn without_a_folder_nothing_is_kept_and_the_file_decides() {
    let config = format!("{}[plugin_versions]\ndir = \"\"\n", config("a"));
    let server = Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await;
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
    let why = plugin(&server).await["not_kept"].clone();
    assert_eq!(why, "plugin_versions.dir is empty");
    assert!(!server.dir.path().join(".signalbox/versions").exists());
    let server = server.restart().await;
    assert_eq!(stamp(&server).await, "a:STAMP-0000000001");
}

#[tokio::test]
async fn each_plugin_has_separate_versions() {
    let config = format!(
        "{}[[plugins]]\nname = \"other\"\npath = \"hostile.wasm\"\nevents = [\"hostile.*\"]\n",
        config("a")
    );
    let files: [(&str, &[u8]); 2] = [
        ("stamp.wasm", &stamped("1")),
        ("hostile.wasm", &component("hostile")),
    ];
    let server = Logged::start(&files, &config).await;
    until("both are kept", async || {
        let folder = server.dir.path().join(".signalbox/versions");
        let state = |name: &str| folder.join(name).join("state.json").exists();
        (state("stamp") && state("other")).then_some(())
    })
    .await;
    assert_eq!(kept_components(&server), 1);
}
