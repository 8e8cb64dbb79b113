//! The way from nothing to a live plugin: new, build, test, push, and a client whose messages change without a
//! reconnect.

use anyhow::ensure;
use serde_json::{Value, json};

use super::Steps;
use super::client::Client;
use super::node::{Node, Served};
use super::signalbox::{PUSH_TIME_MAX, Signalbox};

/// Runs all steps in `language`.
pub(super) fn run(signalbox: &Signalbox, language: &str, steps: &mut Steps) -> anyhow::Result<()> {
    let name = name(language);
    let folder = signalbox.folder(&name);
    let served = Served {
        plugins: std::slice::from_ref(&name),
        event_type: "note",
        on_failure: "pass",
        single: false,
    };
    let node = Node::start(signalbox, &name, &served)?;
    let mut client = Client::connect(node.address)?;
    let note = json!({"type": "note", "payload": "see you :)", "receiverId": "ann"});
    expect(&client.ask(&note, "note")?, "see you :)")?;

    steps.step("new", || signalbox.new_project(&name, language))?;
    steps.step("build", || signalbox.run(&folder, &["plugin", "build"]))?;
    steps.step("test", || signalbox.run(&folder, &["plugin", "test"]))?;
    steps.step("push", || {
        let push = ["plugin", "push", "--timeout", PUSH_TIME_MAX];
        signalbox.run_with(&folder, &push, &node.access())
    })?;
    steps.step("messages", || {
        expect(&client.ask(&note, "note")?, "see you 🙂")?;
        let hello = json!({"type": format!("{name}.hello")});
        expect(
            &client.ask(&hello, &format!("{name}.greeting"))?,
            "Hello, ann",
        )?;
        let wrong = json!({"type": "note", "payload": 7, "receiverId": "ann"});
        expect(&client.ask(&wrong, "error")?["code"], "invalid_payload")
    })
}

/// The name of the plugin.
pub(super) fn name(language: &str) -> String {
    format!("demo-{language}")
}

fn expect(found: &Value, expected: &str) -> anyhow::Result<()> {
    ensure!(
        found == expected,
        "a message came out as {found}, and should be {expected:?}"
    );
    Ok(())
}
