//! The command line of the real binary: its output and exit codes.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    harness::{WITH_CHAT, folder, replace},
    process::{Finished, Server, Signal, run},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Runs a command in a folder with the chat plugin and with `config` as `platform.toml`.
async fn run_with_chat(config: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let dir = folder(&[("platform.toml", config.as_bytes())]);
    run(dir.path(), arguments, environment).await
}

#[tokio::test]
async fn check_admits_a_good_configuration_and_its_plugins() {
    let checked = run_with_chat(WITH_CHAT, &["check"], &[]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    assert!(checked.stdout.contains("plugins.chat: admitted, version "));
    for interface in ["validation", "transformation", "events"] {
        assert!(checked.stdout.contains(interface), "{}", checked.stdout);
    }
    // A file in another folder; its paths are relative to that folder.
    let dir = folder(&[("other.toml", WITH_CHAT.as_bytes())]);
    let file = dir.path().join("other.toml");
    let arguments = ["check", "--config", file.to_str().unwrap()];
    let elsewhere = tempfile::tempdir().unwrap();
    let checked = run(elsewhere.path(), &arguments, &[]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    // Without any file.
    let checked = run(elsewhere.path(), &["check"], &[]).await;
    assert_eq!(checked.code, Some(0));
}

#[tokio::test]
async fn check_names_every_error_at_once_with_line_and_key_and_exits_with_2() {
    let config = "[server]\nlisten = \"nowhere\"\n[limits]\nframe_bytes_mx = \"64KiB\"\nmessages_burst = 0\n\
                  [auth]\nmode = \"magic\"\n";
    let checked = run_with_chat(
        config,
        &["check"],
        &[("SIGNALBOX_SERVER__PING_INTERVAL", "soon")],
    )
    .await;
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(2), ""));
    let lines: Vec<&str> = checked.stderr.lines().collect();
    let expected = [
        "platform.toml:2:10: server.listen: ",
        "platform.toml:4:1: limits.frame_bytes_mx: unknown key; did you mean frame_bytes_max",
        "platform.toml:5:18: limits.messages_burst: ",
        "platform.toml:7:8: auth.mode: ",
        "SIGNALBOX_SERVER__PING_INTERVAL: server.ping_interval: ",
    ];
    assert_eq!(lines.len(), expected.len(), "{}", checked.stderr);
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line} is not {expected}");
    }
    // `run` prints the same error, and starts nothing.
    let started = run_with_chat(
        config,
        &["run"],
        &[("SIGNALBOX_SERVER__PING_INTERVAL", "soon")],
    )
    .await;
    assert_eq!((started.code, started.stderr), (Some(2), checked.stderr));
}

#[tokio::test]
async fn check_refuses_a_file_that_is_not_there_and_a_file_that_is_no_toml() {
    let missing = run_with_chat("", &["check", "--config", "nowhere.toml"], &[]).await;
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("nowhere.toml: cannot be read"),
        "{}",
        missing.stderr
    );
    let broken = run_with_chat("[server\n", &["check"], &[]).await;
    assert_eq!(broken.code, Some(2));
    assert!(
        broken.stderr.starts_with("platform.toml:1:"),
        "{}",
        broken.stderr
    );
}

#[tokio::test]
async fn check_refuses_bad_plugins_and_names_each() {
    let plugin = |name: &str| {
        format!("[[plugins]]\nname = \"{name}\"\npath = \"{name}.wasm\"\nevents = [\"{name}.*\"]\n")
    };
    let config = format!(
        "{}{}{WITH_CHAT}config = {{ max_text_chars = 0 }}\n",
        plugin("missing"),
        plugin("broken")
    );
    let files: [(&str, &[u8]); 2] = [
        ("platform.toml", config.as_bytes()),
        ("broken.wasm", b"not a component"),
    ];
    let checked = run(folder(&files).path(), &["check"], &[]).await;
    assert_eq!(checked.code, Some(2));
    for name in ["missing", "broken", "chat"] {
        let start = format!("plugins.{name}: ");
        let is_named = checked.stderr.lines().any(|line| line.starts_with(&start));
        assert!(is_named, "{name}: {}", checked.stderr);
    }
    assert!(
        checked.stderr.contains("max_text_chars is 0"),
        "{}",
        checked.stderr
    );
    assert!(!checked.stdout.contains("valid"), "{}", checked.stdout);
}

#[tokio::test]
async fn check_reads_the_keys_of_tokens() {
    for (key, file) in [("jwt_key_file", "key.pem"), ("jwks_file", "jwks.json")] {
        let config = format!("[auth]\nmode = \"jwt\"\n{key} = \"{file}\"\n");
        let missing = run_with_chat(&config, &["check"], &[]).await;
        assert_eq!(missing.code, Some(2), "{}", missing.stdout);
        let start = format!("auth.{key}: ");
        assert!(missing.stderr.contains(&start), "{}", missing.stderr);
        let files: [(&str, &[u8]); 2] = [("platform.toml", config.as_bytes()), (file, b"no key")];
        let wrong = run(folder(&files).path(), &["check"], &[]).await;
        assert_eq!(wrong.code, Some(2), "{}", wrong.stdout);
        assert!(wrong.stderr.contains(&start), "{}", wrong.stderr);
    }
}

#[tokio::test]
async fn clients_that_name_themselves_are_served_on_a_loopback_alone_unless_it_is_meant() {
    let open = "[server]\nlisten = \"0.0.0.0:0\"\n";
    let checked = run_with_chat(open, &["check"], &[]).await;
    assert_eq!(checked.code, Some(2));
    assert!(
        checked.stderr.contains("allow_insecure"),
        "{}",
        checked.stderr
    );
    let meant = format!("{open}[auth]\nallow_insecure = true\n");
    assert_eq!(run_with_chat(&meant, &["check"], &[]).await.code, Some(0));
    // On a loopback address it starts, with a warning.
    let server = Server::start("").await;
    server.until_log("WARN").await;
    server.until_log("auth.mode is \"none\"").await;
}

#[tokio::test]
async fn a_token_of_the_command_line_opens_a_running_node() {
    let config = "[auth]\nmode = \"jwt\"\njwt_issuer = \"i\"\njwt_audience = \"a\"\n\
                  [[rooms]]\nmatch = \"chat:7\"\njoin = \"token\"\n";
    let environment = [("JWT_SECRET", SECRET), ("WSS_PORT", "0")];
    let server = Server::start_with(&[], config, &environment).await;
    let arguments = ["token", "--user", "ann", "--ttl", "1h"];
    let made = run(server.dir.path(), &arguments, &environment).await;
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    let path = format!("/ws?token={}", made.stdout.trim_end());
    let (mut ann, _) = server.upgrade(&path, &[]).await.unwrap();
    ann.send(r#"{"type":"x","receiverId":"ann"}"#).await;
    assert_eq!(ann.json().await["senderId"], "ann");
    // One for a room opens no connection.
    let arguments = ["token", "--user", "ann", "--room", "chat:7"];
    let made = run(server.dir.path(), &arguments, &environment).await;
    let token = made.stdout.trim_end();
    let refused = server.refused(&format!("/ws?token={token}"), &[]).await;
    assert_eq!(refused.status, 401);
    let join = json!({"type": "join", "room": "chat:7", "payload": {"token": token}, "id": "j"});
    ann.send(&join.to_string()).await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
    // If clients choose their own user names, there is nothing to sign.
    let open = run_with_chat("", &["token", "--user", "ann"], &[]).await;
    assert_eq!((open.code, open.stdout.as_str()), (Some(1), ""));
    assert!(open.stderr.contains("auth.mode"), "{}", open.stderr);
    for wrong in [&["token"][..], &["token", "--user", "ann", "--ttl", "soon"]] {
        let wrong = run(server.dir.path(), wrong, &environment).await;
        assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""));
    }
}

#[tokio::test]
async fn plugin_check_describes_a_component_and_whether_it_is_admitted() {
    let dir = folder(&[("bad.wasm", b"not a component")]);
    let text = run(dir.path(), &["plugin", "check", "chat.wasm"], &[]).await;
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    let titles: Vec<&str> = text
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for title in [
        "file",
        "size",
        "sha256",
        "exports",
        "imports",
        "memory",
        "init",
        "self-test",
        "call",
        "verdict",
    ] {
        assert!(titles.contains(&title), "{title}: {}", text.stdout);
    }
    assert!(text.stdout.ends_with("admitted\n"), "{}", text.stdout);
    let json = run(dir.path(), &["plugin", "check", "chat.wasm", "--json"], &[]).await;
    assert_eq!(json.code, Some(0));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let bytes = std::fs::metadata(dir.path().join("chat.wasm"))
        .unwrap()
        .len();
    assert_eq!(
        (&report["verdict"], &report["bytes"]),
        (&"admitted".into(), &bytes.into())
    );
    let sha256 = report["sha256"].as_str().unwrap();
    assert!(sha256.len() == 64 && text.stdout.contains(sha256));
    assert!(report["exports"].as_array().unwrap().len() >= 3, "{report}");
    assert!(report["imports"].is_array(), "{report}");
    for number in ["memory_bytes", "init_ms", "self_test_ms"] {
        assert!(report[number].is_number(), "{number}: {report}");
    }
    assert!(report["calls"][0]["warm_ms"].is_number(), "{report}");
    // `init` gets the configuration as text.
    let config = r#"{"max_text_chars":0}"#;
    let arguments = [
        "plugin",
        "check",
        "chat.wasm",
        "--json",
        "--config-text",
        config,
    ];
    let refused = run(dir.path(), &arguments, &[]).await;
    assert_eq!(refused.code, Some(2));
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(report["verdict"], "refused");
    assert!(
        report["reason"]
            .as_str()
            .unwrap()
            .contains("max_text_chars is 0")
    );
    for file in ["bad.wasm", "missing.wasm"] {
        let refused = run(dir.path(), &["plugin", "check", file], &[]).await;
        assert_eq!(refused.code, Some(2), "{file}");
        assert!(refused.stdout.contains("refused: "), "{}", refused.stdout);
    }
}

#[tokio::test]
async fn help_and_version_exit_with_0_and_an_unknown_command_with_2() {
    for arguments in [&["--help"][..], &["--version"], &["plugin", "--help"]] {
        let finished = run_with_chat("", arguments, &[]).await;
        assert_eq!(finished.code, Some(0));
        assert!(!finished.stdout.is_empty());
    }
    let unknown = run_with_chat("", &["chekc"], &[]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("check"), "{}", unknown.stderr);
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_the_address_and_the_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = format!("[server]\nlisten = \"{address}\"\n");
    let started = run_with_chat(&config, &[], &[]).await;
    assert_eq!(started.code, Some(1));
    assert!(
        started.stderr.contains(&address.to_string()),
        "{}",
        started.stderr
    );
    assert!(
        started.stderr.contains("server.listen"),
        "{}",
        started.stderr
    );
}

#[tokio::test]
async fn wss_port_replaces_the_port_and_env_is_read_below_the_environment() {
    let listen = "[server]\nlisten = \"127.0.0.1:1\"\n";
    let dotenv: &[u8] = b"# a comment\nWSS_PORT=0\nSIGNALBOX_LIMITS__MESSAGES_BURST='7'\n\
        SIGNALBOX_LIMITS__ROOMS_PER_CONNECTION_MAX=8\n";
    let environment = [("SIGNALBOX_LIMITS__ROOMS_PER_CONNECTION_MAX", "9")];
    let server = Server::start_with(&[(".env", dotenv)], listen, &environment).await;
    assert_ne!(server.address.port(), 1);
    let mut ann = server.connect("ann", Some("signalbox.v1")).await.unwrap();
    let limits = ann.json().await["payload"]["limits"].clone();
    assert_eq!(limits["messagesBurst"], 7);
    assert_eq!(limits["roomsMax"], 9);
    // An invalid line is an error that names its number.
    let dir = folder(&[(".env", b"A=1\nnonsense\n")]);
    let checked = run(dir.path(), &["check"], &[]).await;
    assert_eq!(checked.code, Some(2));
    assert!(checked.stderr.contains(".env:2:1: "), "{}", checked.stderr);
}

#[tokio::test]
async fn logs_are_one_json_object_per_line_if_configured() {
    let environment = [
        ("WSS_PORT", "0"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "signalbox=debug"),
    ];
    let mut server = Server::start_with(&[], WITH_CHAT, &environment).await;
    server.client("ann").await.close().await;
    server.until_log("connection ended").await;
    // A message of several lines is one line of the log.
    server.configure("[limits]\na = 1\nb = 2\n");
    server.until_log("configuration refused").await;
    server.signal(Signal::TERM);
    server.exit().await;
    let log = server.log();
    assert!(log.len() > 5);
    for line in &log {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
    }
}

#[tokio::test]
async fn a_failed_start_is_logged_as_json_if_configured() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!("[server]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    let started = run_with_chat(&config, &[], &[("LOG_FORMAT", "json")]).await;
    assert_eq!(started.code, Some(1));
    for line in started.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(line["message"].is_string(), "{line}");
    }
    assert!(
        started.stderr.contains("server.listen"),
        "{}",
        started.stderr
    );
}

#[tokio::test]
async fn no_argument_is_run() {
    let dir = folder(&[]);
    replace(
        dir.path(),
        "platform.toml",
        b"[server]\nlisten = \"nowhere\"\n",
    );
    let (none, run_command) = (
        run(dir.path(), &[], &[]).await,
        run(dir.path(), &["run"], &[]).await,
    );
    assert_eq!((none.code, &none.stderr), (Some(2), &run_command.stderr));
    // With an empty configuration, it serves with the defaults.
    let server = Server::start("").await;
    assert_eq!(server.get("/ready").await.0, 200);
}
