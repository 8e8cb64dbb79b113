//! A client of the API, generated from the description that a node serves.

use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::harness::{Node, PATIENCE};

const KEY: &str = "first-key-of-tests";

/// A folder of the repository.
fn at_the_top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Runs a command that must succeed, and returns its output.
async fn output(command: &mut Command) -> String {
    let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output
        .expect("it ends")
        .expect("it starts; `cargo xtask test` puts it there");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_client_sends_a_message() {
    let node = Node::start(&format!("[api]\nkeys = [\"{KEY}\"]\n")).await;
    let head = format!("GET /api/openapi.json HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    let description = node.http(&head).await;
    assert_eq!(description.status, 200);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, description.body).expect("the description is written");
    let programs = at_the_top("target/moto/bin");
    // The generator runs ruff over what it made.
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", programs.display());
    output(
        Command::new(programs.join("python"))
            .args(["-m", "openapi_python_client", "generate"])
            .args(["--fail-on-warning", "--meta", "none", "--path"])
            .arg(&file)
            .arg("--output-path")
            .arg(dir.path().join("signalbox_api"))
            .env("PATH", path)
            .current_dir(dir.path()),
    )
    .await;
    let mut ann = node.reachable("ann").await;
    let worker = async |user: &str| {
        output(
            Command::new(programs.join("python"))
                .arg(at_the_top("examples/workers/send_by_generated_client.py"))
                .args([user, "order_paid", r#"{"order": 7}"#])
                .env("PYTHONPATH", dir.path())
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("SIGNALBOX_API_KEY", KEY)
                .env("SIGNALBOX_URL", format!("http://{}", node.address)),
        )
        .await
    };
    let sent = worker("ann").await;
    let message = ann.json().await;
    assert_eq!(
        (&message["type"], &message["payload"]),
        (&json!("order_paid"), &json!({"order": 7}))
    );
    let id = message["messageId"].as_str().expect("an ID");
    assert_eq!(sent, format!("online\n{id} delivered\n"));
    let sent = worker("bob").await;
    assert!(
        sent.starts_with("away\n") && sent.ends_with(" offline\n"),
        "{sent}"
    );
}
