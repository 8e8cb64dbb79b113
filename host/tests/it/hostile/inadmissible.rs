//! The table of components that fail before they serve anyone, with the message of each refusal.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use signalbox::{
    config::{PluginConfig, PluginLimits},
    plugin::{PluginManager, Trigger},
};

use super::malformed;
use crate::{
    guests::{agreeable, component},
    runtime::{FILE_BYTES_MAX, live, manager, message, plugin},
};

/// A component that must not be admitted.
struct Inadmissible {
    /// A description of the attempt.
    what: &'static str,
    component: fn() -> Vec<u8>,
    /// The configuration of the plugin.
    config: &'static str,
    /// The text that the refusal contains.
    expected: &'static str,
}

fn hostile() -> Vec<u8> {
    component("hostile")
}

const fn guest(what: &'static str, config: &'static str, expected: &'static str) -> Inadmissible {
    Inadmissible {
        what,
        component: hostile,
        config,
        expected,
    }
}

const fn made(
    what: &'static str,
    component: fn() -> Vec<u8>,
    expected: &'static str,
) -> Inadmissible {
    Inadmissible {
        what,
        component,
        config: "{}",
        expected,
    }
}

/// A component that loops reaches its CPU limit, or, on a busy machine, its time limit before that.
const TOO_LONG: &str = "the plugin does not start: the call ";

/// All of them, with the text that an operator reads.
#[rustfmt::skip]
const INADMISSIBLE: [Inadmissible; 22] = [
    made("a start function that loops",
        || malformed::starting_with("(func $s (loop (br 0))) (start $s)"),
        TOO_LONG),
    made("a start function that traps",
        || malformed::starting_with("(func $s unreachable) (start $s)"),
        "the plugin does not start: wasm trap: wasm `unreachable` instruction executed"),
    made("a start function that takes memory",
        || malformed::starting_with("(func $s (drop (memory.grow (i32.const 2000)))) (start $s)"),
        "bytes of memory, and may have 67108864 (`memory_max`)"),
    made("a memory that is too large from the beginning",
        || agreeable("", 1025),
        "bytes of memory, and may have 67108864 (`memory_max`)"),
    made("many instances",
        || agreeable(&malformed::many(200, ""), 1),
        "the component exceeds the limits of this host: The component transitively contains 201 core module \
         instances"),
    made("many memories",
        || agreeable(&malformed::many(30, "(memory 1)"), 1),
        "the component exceeds the limits of this host: The component transitively contains 31 Wasm linear memories"),
    made("many tables",
        || agreeable(&malformed::many(30, "(table 1 funcref)"), 1),
        "the component exceeds the limits of this host: The component transitively contains 30 tables"),
    made("a table of a million from the beginning",
        || agreeable(&malformed::many(1, "(table 1000000 funcref)"), 1),
        "the component exceeds the limits of this host"),
    made("components in components, very deep",
        || malformed::nested(2_000),
        "exports no interface of signalbox:plugin@1.0.0"),
    made("a function with a thousand long names",
        || malformed::long_winded(900),
        "exports `signalbox:plugin/validation` with another type than the WIT package has"),
    made("an init that refuses in no text",
        malformed::refusing_in_no_text,
        "the plugin does not start"),
    guest("an init that never ends", r#"{"init":"loop"}"#,
        TOO_LONG),
    guest("an init that sleeps", r#"{"init":"sleep"}"#,
        "the plugin does not start: the call took longer than allowed"),
    guest("an init that panics", r#"{"init":"panic"}"#,
        "the plugin does not start"),
    guest("an init without end of depth", r#"{"init":"recurse"}"#,
        "the plugin does not start: wasm trap: call stack exhausted"),
    guest("an init that takes memory", r#"{"init":"alloc"}"#,
        "bytes of memory, and may have 67108864 (`memory_max`)"),
    guest("a self-test that never ends", r#"{"self_test":"loop"}"#,
        "self-test failed: the call "),
    guest("a self-test that panics", r#"{"self_test":"panic"}"#,
        "self-test failed"),
    guest("a self-test that fails and says much", r#"{"self_test":"talk"}"#,
        "self-test failed: xxx"),
    guest("too many event types", r#"{"event_types":"many"}"#,
        "event-types and request-types: 257 of them, a plugin may have 256"),
    guest("an event type that forges a line of the log", r#"{"event_types":"forged"}"#,
        "event-types: `x ERROR y` is not an event type"),
    guest("an event type of the server's own", r#"{"event_types":"join"}"#,
        "event-types: `join` is built in"),
];

/// More time than any start takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// No refusal is longer, whatever a component contains: it is logged on one line and shown to operators.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

impl Inadmissible {
    /// Whether it uses all of its time limit. The others get as much time as they need on a busy machine.
    fn takes_all_time(&self) -> bool {
        self.expected.contains(": the call ")
    }

    /// Whether it was refused before it came to its fault: the machine was too busy for the time limit.
    fn started_too_slowly(&self, refusal: &str) -> bool {
        refusal.contains(TOO_LONG) && !self.expected.contains("does not start")
    }
}

/// The plugin with a configuration, and with this time limit for its start.
fn configured(file: &Path, config: &str, init_time_max: Duration) -> PluginConfig {
    let mut plugin = plugin("hostile", file, config);
    plugin.limits = PluginLimits {
        init_time_max,
        ..plugin.limits
    };
    plugin
}

/// Sends calls to the live version without end, and checks that it answers each.
async fn serve(manager: &PluginManager) -> Infallible {
    loop {
        serve_once(manager).await;
        tokio::task::yield_now().await;
    }
}

async fn serve_once(manager: &PluginManager) {
    let version = live(manager, "hostile");
    let answer = version.handle(None, message("hostile.nothing", "1")).await;
    assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
}

/// Puts the component in the place of the live version, which serves meanwhile and afterwards, and returns the refusal.
async fn refusal_of(inadmissible: &Inadmissible, manager: &PluginManager, file: &Path) -> String {
    std::fs::write(file, (inadmissible.component)()).unwrap();
    let mut time = match inadmissible.takes_all_time() {
        true => Duration::from_millis(300),
        false => LONG,
    };
    loop {
        let configs = [configured(file, inadmissible.config, time)];
        let refusals = tokio::select! {
            refusals = manager.apply(&configs, FILE_BYTES_MAX, Trigger::Signal) => refusals,
            never = serve(manager) => match never {},
        };
        serve_once(manager).await;
        let [(_, refusal)] = refusals.as_slice() else {
            panic!("{} is not refused: {refusals:?}", inadmissible.what);
        };
        let refusal = refusal.to_string();
        if !inadmissible.started_too_slowly(&refusal) || time >= LONG {
            return refusal;
        }
        time *= 2;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_fails_before_it_serves_is_refused_and_the_live_version_continues() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hostile.wasm");
    std::fs::write(&file, hostile()).unwrap();
    let manager = manager();
    let patient = configured(&file, "{}", LONG);
    let refusals = manager
        .apply(&[patient], FILE_BYTES_MAX, Trigger::Start)
        .await;
    assert!(refusals.is_empty(), "{refusals:?}");
    let first = Arc::downgrade(&live(&manager, "hostile"));
    let mut wrong = Vec::new();
    for inadmissible in INADMISSIBLE {
        let refusal = refusal_of(&inadmissible, &manager, &file).await;
        let in_words = refusal.contains(inadmissible.expected);
        let in_a_line = refusal.len() < REFUSAL_BYTES_MAX && !refusal.contains(char::is_control);
        if !in_words || !in_a_line {
            wrong.push(format!("{}: {refusal}", inadmissible.what));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let still = Arc::downgrade(&live(&manager, "hostile"));
    assert!(first.ptr_eq(&still), "nothing else was ever live");
}
