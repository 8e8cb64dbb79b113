//! Which components are admitted, which are refused, and with which messages: `signalbox plugin check` and `signalbox
//! check`.

use std::{path::Path, sync::Arc};

use serde_json::{Value, json};
use signalbox::{
    config::{PluginConfig, PluginLimits},
    plugin::{Admission, CompilePriority, Loader},
};
use tokio::process::Command;

use crate::{
    guests::{
        agreeable, agreeable_of, component, import, screening_alone, stamped, wat,
        without_function, wrong_type,
    },
    harness::chat_plugin,
    runtime::plugin,
};

/// Exit code, standard output and standard error of a command of the binary.
async fn signalbox(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_signalbox"))
        .args(arguments)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder)
        .output()
        .await
        .expect("the server binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    let code = output.status.code();
    let code = code.unwrap_or_else(|| panic!("{}: {out}{error}", output.status));
    (code, out, error)
}

/// The report of `plugin check` on a component.
async fn report(bytes: &[u8], config: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.wasm"), bytes).unwrap();
    let arguments = [
        "plugin",
        "check",
        "p.wasm",
        "--json",
        "--config-text",
        config,
    ];
    let (code, out, error) = signalbox(dir.path(), &arguments).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    let verdict = if code == 0 { "admitted" } else { "refused" };
    assert_eq!(report["verdict"], verdict, "{report}");
    report
}

/// Admits a component as a server does.
async fn admit(loader: &Loader, bytes: &[u8], config: &str) -> Result<Admission, String> {
    let config = PluginConfig {
        limits: PluginLimits::default(),
        ..plugin("p", Path::new("p.wasm"), config)
    };
    let loaded = loader
        .load(&Arc::new(config), bytes.into(), CompilePriority::Full)
        .await;
    loaded
        .map(|version| version.admission().clone())
        .map_err(|error| error.to_string())
}

/// The reason why a component is refused.
async fn refused(loader: &Loader, bytes: &[u8], config: &str) -> String {
    let reason = admit(loader, bytes, config)
        .await
        .expect_err("it is refused");
    assert!(!reason.contains('\n'), "one line: {reason}");
    reason
}

fn loader() -> Loader {
    crate::runtime::loader(&Arc::default())
}

fn with_section(mut bytes: Vec<u8>, name: &str, content: &[u8]) -> Vec<u8> {
    let body = [
        &[u8::try_from(name.len()).unwrap()],
        name.as_bytes(),
        content,
    ]
    .concat();
    bytes.extend([0, u8::try_from(body.len()).unwrap()]);
    bytes.extend(body);
    bytes
}

#[tokio::test]
async fn the_report_describes_a_component_and_the_cost_of_its_calls() {
    let bytes = with_section(component("follower"), "version", b"1.2.3");
    let report = report(&bytes, "{}").await;
    assert_eq!(
        report["exports"],
        json!(["events", "connections", "rooms", "lifecycle"])
    );
    assert_eq!(
        report["event_types"],
        json!(["follower.do", "follower.call"])
    );
    assert_eq!(
        (&report["version"], &report["name"]),
        (&json!("1.2.3"), &json!(null))
    );
    assert_eq!(report["bytes"], bytes.len());
    assert_eq!(report["sha256"].as_str().map(str::len), Some(64));
    let names = |key: &str| report[key].as_array().expect("a list").clone();
    assert!(
        names("imports").contains(&json!("signalbox:plugin/store@1.0.0")),
        "{report}"
    );
    assert!(
        names("imports")
            .iter()
            .all(|name| !name.as_str().unwrap().starts_with("wasi:"))
    );
    assert!(!names("wasi").is_empty());
    assert!(
        report["memory_bytes"].as_u64() >= Some(64 << 10),
        "{report}"
    );
    for time in ["compile_ms", "instantiate_ms", "init_ms", "self_test_ms"] {
        assert!(report[time].as_f64() > Some(0.0), "{time}: {report}");
    }
    let calls = names("calls");
    let functions: Vec<_> = calls
        .iter()
        .map(|call| call["function"].as_str().unwrap())
        .collect();
    assert_eq!(
        functions,
        [
            "events.handle",
            "connections.connected",
            "rooms.authorize-join"
        ]
    );
    for call in &calls {
        let (cold, warm) = (call["cold_ms"].as_f64(), call["warm_ms"].as_f64());
        assert!(warm > Some(0.0) && cold > warm, "{call}");
    }
    assert_eq!(calls[0]["about"], "follower.do");
    assert_eq!(calls[1]["answer"], "accepted");
}

#[tokio::test]
async fn the_report_is_readable_and_tells_of_calls_that_fail() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(chat_plugin(), dir.path().join("chat.wasm")).unwrap();
    let (code, out, _) = signalbox(dir.path(), &["plugin", "check", "chat.wasm"]).await;
    assert_eq!(code, 0);
    for line in [
        "file        chat.wasm",
        "handles     chat.typing, ",
        "verdict     admitted",
    ] {
        assert!(
            out.lines().any(|found| found.starts_with(line)),
            "{line} in:\n{out}"
        );
    }
    std::fs::write(dir.path().join("large.wasm"), vec![0; 33 << 20]).unwrap();
    for (file, expected) in [
        ("nothing.wasm", "refused: nothing.wasm: No such file"),
        ("large.wasm", "(`limits.plugin_file_bytes_max`)"),
    ] {
        let (code, out, _) = signalbox(dir.path(), &["plugin", "check", file]).await;
        assert_eq!(code, 2);
        assert!(out.contains(expected), "{out}");
    }

    // The stamp guest expects an object, and the sample message for a handler is one.
    let report = report(&stamped("1"), r#"{"handles":["x.*"]}"#).await;
    let calls: Vec<_> = report["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            (
                call["function"].as_str().unwrap(),
                call["about"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        calls,
        [
            ("validation.validate", "chat_message"),
            ("transformation.transform", "chat_message"),
            ("screening.screen", "chat_message"),
            ("events.handle", "x.x"),
        ]
    );
}

#[tokio::test]
async fn a_file_that_is_no_component_is_refused_with_its_kind() {
    let good = component("stamp");
    for (bytes, expected) in [
        (&b""[..], "not a component: the file is empty"),
        (b"not wasm", "not a component: the file is not WebAssembly"),
        (
            &good[..good.len() / 2],
            "the file is damaged or half written",
        ),
        (
            &wat("(module)"),
            "the file is a core module; build for wasm32-wasip2",
        ),
    ] {
        let reason = refused(&loader(), bytes, "{}").await;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn a_type_mismatch_with_the_wit_package_shows_the_expected_and_the_found_type() {
    let loader = loader();
    for (bytes, expected) in [
        (
            wat("(component)"),
            &[
                "exports no interface of signalbox:plugin@1.0.0",
                "export at least one of validation, transformation, events, requests, connections, rooms, membership, lifecycle",
                "it exports nothing",
            ][..],
        ),
        (
            without_function("acme:chat/validation@1.0.0"),
            &["it exports `acme:chat/validation@1.0.0`"],
        ),
        (
            without_function("signalbox:plugin/validation@1.0.0"),
            &[
                "exports `signalbox:plugin/validation@1.0.0` without the function \
               `validate: func(message: message) -> result<_, rejection>`; it has no functions",
            ],
        ),
        (
            screening_alone(),
            &[
                "exports `screening` without `validation`",
                "export all three",
            ],
        ),
        (
            wrong_type(),
            &[
                "expected `validate: func(message: message) -> result<_, rejection>`",
                "found `validate: func(text: string) -> bool`",
            ],
        ),
        (
            without_function("signalbox:plugin/validation@2.0.0"),
            &[
                "exports `signalbox:plugin/validation@2.0.0`, this host serves signalbox:plugin@1.0.0: \
               build the plugin against that, or upgrade the host",
            ],
        ),
        (
            agreeable(&import("signalbox:plugin/store@1.1.0"), 1),
            &[
                "imports `list-keys: func(prefix: string) -> list<string>` of `signalbox:plugin/store@1.1.0`",
                "has only get, set, remove, increment, compare-and-swap",
            ],
        ),
        (
            agreeable(&import("signalbox:plugin/mail@1.1.0"), 1),
            &["imports `signalbox:plugin/mail@1.1.0`"],
        ),
        (
            agreeable(&import("signalbox:plugin/store@2.0.0"), 1),
            &["imports `signalbox:plugin/store@2.0.0`, this host serves signalbox:plugin@1.0.0"],
        ),
        (
            agreeable(&import("wasi:http/types@0.2.0"), 1),
            &["imports `wasi:http/types@0.2.0`, which this host does not offer"],
        ),
        (
            agreeable(&import("acme:db/sql@1.0.0"), 1),
            &["imports `acme:db/sql@1.0.0`, which is neither of signalbox:plugin nor of WASI 0.2"],
        ),
        (
            agreeable(
                r#"(import "signalbox:plugin/context@1.0.0" (instance (export "now" (func (result u32)))))"#,
                1,
            ),
            &["with another type than this host offers", "`now`"],
        ),
    ] {
        let reason = refused(&loader, &bytes, "{}").await;
        for expected in expected {
            assert!(reason.contains(expected), "{expected}\nin: {reason}");
        }
    }
}

#[tokio::test]
async fn a_failed_init_or_self_test_is_refused_with_the_plugins_message() {
    let (loader, hostile) = (loader(), component("hostile"));
    for (config, expected) in [
        (
            r#"{"init":"panic"}"#,
            &["the plugin does not start", "panicked at", "init panics"][..],
        ),
        (
            r#"{"init":"refuse"}"#,
            &["init refused its configuration: size: must be small"],
        ),
        (
            r#"{"init":"alloc"}"#,
            &["bytes of memory, and may have 67108864 (`memory_max`)"],
        ),
        (
            r#"{"self_test":"fail"}"#,
            &["self-test failed: two and two were five"],
        ),
        (
            r#"{"self_test":"panic"}"#,
            &["self-test failed", "self-test panics"],
        ),
        (
            r#"{"event_types":"join"}"#,
            &["event-types: `join` is built in"],
        ),
        (
            r#"{"event_types":"many"}"#,
            &["event-types and request-types: 257 of them, a plugin may have 256"],
        ),
        (
            r#"{"event_types":"forged"}"#,
            &["event-types: `x ERROR y` is not an event type"],
        ),
        (
            r#"{"event_types":"a*b"}"#,
            &["event-types: `a*b` is not an event type or pattern"],
        ),
    ] {
        let reason = refused(&loader, &hostile, config).await;
        for expected in expected {
            assert!(reason.contains(expected), "{expected}\nin: {reason}");
        }
    }
}

#[tokio::test]
async fn memories_of_a_component_count_together() {
    // 40 MiB are within the limit of 64 MiB; twice as much is not.
    let loader = loader();
    let more = "(core module $big (memory 640)) (core instance (instantiate $big))";
    let admission = admit(&loader, &agreeable(more, 1), "{}").await.unwrap();
    assert_eq!(admission.trial.memory, 641 * 65_536);
    let twice = format!("{more} (core instance (instantiate $big))");
    for bytes in [agreeable("", 1025), agreeable(&twice, 1)] {
        let reason = refused(&loader, &bytes, "{}").await;
        assert!(reason.contains("(`memory_max`)"), "{reason}");
    }
}

#[tokio::test]
async fn a_component_for_a_later_package_is_admitted_if_it_also_exports_this_one() {
    let loader = loader();
    let later =
        r#"(instance $later) (export "signalbox:plugin/lifecycle@2.0.0" (instance $later))"#;
    for bytes in [
        agreeable_of("1.0.0", "", 1),
        agreeable_of("1.7.1", "", 1),
        agreeable_of("1.0.0", later, 1),
    ] {
        let admission = admit(&loader, &bytes, "{}").await.unwrap();
        assert_eq!(admission.interfaces, ["lifecycle"]);
    }
    // If the host ignored an interface, that could be the one that refuses messages.
    let other = later.replace("lifecycle", "validation");
    let reason = refused(&loader, &agreeable(&other, 1), "{}").await;
    assert!(reason.contains("validation@2.0.0"), "{reason}");
}

#[tokio::test]
async fn check_reads_a_whole_configuration_and_finds_plugins_that_conflict() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("stamp.wasm"), stamped("1")).unwrap();
    let plugin = |name: &str, handles: &str| {
        format!(
            "[[plugins]]\nname = \"{name}\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n\
             config = {{ handles = [\"{handles}\"] }}\n"
        )
    };
    for (other, code, expected) in [
        ("y.*", 0, "plugins.b: admitted, version "),
        (
            "x.*",
            2,
            "plugins.b: `x.*` is handled by plugin `a` already",
        ),
    ] {
        let config = format!("{}{}", plugin("a", "x.*"), plugin("b", other));
        std::fs::write(dir.path().join("platform.toml"), config).unwrap();
        let (found, out, error) = signalbox(dir.path(), &["check"]).await;
        assert_eq!(found, code, "{out}{error}");
        assert!(format!("{out}{error}").contains(expected), "{out}{error}");
    }
}
