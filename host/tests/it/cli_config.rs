//! `run` and `check` name the source of the configuration, settings that are probably unintended, and secrets that are
//! too weak; and they never print a secret.

use crate::{
    harness::{WITH_CHAT, folder},
    process::{Finished, Server, Signal, run},
};

/// Part of every secret in these tests.
const CANARY: &str = "canary";
const SECRET: &str = "canary-canary-canary-canary-canary";

async fn check(files: &[(&str, &[u8])], environment: &[(&str, &str)]) -> Finished {
    run(folder(files).path(), &["check"], environment).await
}

#[tokio::test]
async fn run_and_check_say_which_configuration_file_they_read() {
    let server = Server::start(WITH_CHAT).await;
    let line = server.until_log("the configuration is ").await;
    let file = server.dir.path().join("platform.toml");
    assert!(line.contains(file.to_str().expect("a path")), "{line}");
    let files: [(&str, &[u8]); 3] = [("platform.toml", b""), (".env", b""), (".env.local", b"")];
    let checked = check(&files, &[]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    assert!(
        checked
            .stdout
            .contains("platform.toml (and the variables of .env and .env.local)"),
        "{}",
        checked.stdout
    );
}

#[tokio::test]
async fn without_a_file_run_and_check_name_the_searched_paths_and_the_defaults() {
    let dir = tempfile::tempdir().expect("a folder");
    let expected = dir.path().join("platform.toml");
    let parts = [
        "there is no configuration file",
        expected.to_str().expect("a path"),
        "no plugin runs",
        "--config",
    ];
    let checked = run(dir.path(), &["check"], &[]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    let server = Server::launch_in(dir, &[("WSS_PORT", "0")])
        .until_listening()
        .await;
    let line = server.until_log("there is no configuration file").await;
    for part in parts {
        assert!(checked.stdout.contains(part), "{part}: {}", checked.stdout);
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(
        !checked.stdout.contains("the configuration is valid"),
        "{}",
        checked.stdout
    );
    assert_eq!(server.get("/ready").await.0, 200);
}

#[tokio::test]
async fn a_named_file_that_is_not_there_is_an_error_for_run_and_check() {
    for command in ["run", "check"] {
        let arguments = [command, "--config", "nowhere.toml"];
        let ended = run(folder(&[]).path(), &arguments, &[]).await;
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{command}"
        );
        assert!(
            ended.stderr.starts_with("nowhere.toml: cannot be read"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_port_without_an_address_warns_that_only_loopback_is_served() {
    let server = Server::start("").await;
    let line = server.until_log("WSS_PORT sets only the port").await;
    assert!(
        line.contains("WARN") && line.contains("SIGNALBOX_SERVER__LISTEN=0.0.0.0:"),
        "{line}"
    );
    let checked = check(&[], &[("WSS_PORT", "8080")]).await;
    assert_eq!(checked.code, Some(0));
    let is_reported = checked
        .stderr
        .starts_with("warning: server.listen is 127.0.0.1:8080: WSS_PORT");
    assert!(is_reported, "{}", checked.stderr);
    // If the address is set explicitly, there is nothing to report.
    let listen = ("SIGNALBOX_SERVER__LISTEN", "127.0.0.1:8080");
    let checked = check(&[], &[("WSS_PORT", "8080"), listen]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_key_set_without_issuer_and_audience_is_warned_about_by_run_and_check() {
    let config = "[auth]\nmode = \"jwt\"\njwks_file = \"jwks.json\"\n";
    let jwks: &[u8] = include_bytes!("../../auth/src/testdata/jwks.json");
    let files = [("platform.toml", config.as_bytes()), ("jwks.json", jwks)];
    let checked = check(&files, &[]).await;
    assert_eq!(checked.code, Some(0));
    let warning = "auth.jwks_file is used without auth.jwt_issuer and auth.jwt_audience";
    assert!(
        checked.stderr.contains(&format!("warning: {warning}")),
        "{}",
        checked.stderr
    );
    let server = Server::start_with(&[("jwks.json", jwks)], config, &[("WSS_PORT", "0")]).await;
    assert!(server.until_log(warning).await.contains("WARN"));
}

#[tokio::test]
async fn check_fetches_keys_of_a_url_and_warns_if_they_cannot_be_had() {
    let config = "[auth]\nmode = \"jwt\"\njwks_url = \"http://127.0.0.1:1/jwks\"\njwt_issuer = \"i\"\njwt_audience = \"a\"\n";
    let checked = check(&[("platform.toml", config.as_bytes())], &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(
        checked.stderr.starts_with("warning: auth.jwks_url: "),
        "{}",
        checked.stderr
    );
}

#[tokio::test]
async fn a_local_dotenv_wins_over_the_common_one_and_the_process_over_both() {
    let environment = [("SIGNALBOX_LIMITS__FRAME_BYTES_MAX", "3KiB")];
    let files: [(&str, &[u8]); 2] = [
        (
            ".env",
            b"WSS_PORT=1\nSIGNALBOX_LIMITS__MESSAGES_BURST=7\nSIGNALBOX_LIMITS__FRAME_BYTES_MAX=1KiB\n",
        ),
        (
            ".env.local",
            b"WSS_PORT=0\nSIGNALBOX_LIMITS__ROOMS_PER_CONNECTION_MAX=8\nSIGNALBOX_LIMITS__FRAME_BYTES_MAX=2KiB\n",
        ),
    ];
    let server = Server::start_with(&files, "", &environment).await;
    let mut ann = server
        .connect("ann", Some("signalbox.v1"))
        .await
        .expect("a place");
    let limits = ann.json().await["payload"]["limits"].clone();
    assert_eq!(limits["messagesBurst"], 7);
    assert_eq!(limits["roomsMax"], 8);
    assert_eq!(limits["frameBytesMax"], 3 << 10);
}

#[tokio::test]
async fn secrets_with_white_space_or_quotes_around_them_are_errors_that_do_not_show_them() {
    let jwt = "[auth]\nmode = \"jwt\"\n";
    let newline = format!("{SECRET}\n");
    let space = format!(" {SECRET}");
    let quotes = format!("\"{SECRET}\"");
    for (wrong, reason) in [
        (&newline, "white space"),
        (&space, "white space"),
        (&quotes, "quotes"),
    ] {
        for variable in [
            "JWT_SECRET",
            "SIGNALBOX_AUTH__JWT_SECRET",
            "SIGNALBOX_AUTH__JWT_SECRET_PREVIOUS",
            "SIGNALBOX_ADMIN__KEY",
            "SIGNALBOX_API__KEYS",
        ] {
            let mut environment = vec![(variable, wrong.as_str())];
            if !variable.ends_with("JWT_SECRET") {
                environment.push(("JWT_SECRET", SECRET));
            }
            let checked = check(&[("platform.toml", jwt.as_bytes())], &environment).await;
            assert_eq!(checked.code, Some(2), "{variable}");
            assert!(
                checked.stderr.starts_with(&format!("{variable}: ")),
                "{}",
                checked.stderr
            );
            assert!(
                checked.stderr.contains(reason),
                "{variable}: {}",
                checked.stderr
            );
            assert!(!checked.stderr.contains(CANARY), "{}", checked.stderr);
        }
        let text = format!(
            "{jwt}jwt_secret = {wrong:?}\n[admin]\nkey = {wrong:?}\n[api]\nkeys = [{wrong:?}]\n"
        );
        let checked = check(&[("platform.toml", text.as_bytes())], &[]).await;
        assert_eq!(
            (checked.code, checked.stderr.lines().count()),
            (Some(2), 3),
            "{}",
            checked.stderr
        );
        assert!(!checked.stderr.contains(CANARY), "{}", checked.stderr);
    }
    for url in [
        " redis://a",
        "redis://a\n",
        "\"redis://a\"",
        "redis://:%22canary%22@a",
        "redis://:canary%0A@a",
    ] {
        let checked = check(&[], &[("REDIS_URI", url)]).await;
        assert_eq!(checked.code, Some(2), "{url}");
        assert!(!checked.stderr.contains(CANARY), "{}", checked.stderr);
    }
}

#[tokio::test]
async fn a_file_with_a_secret_that_is_of_no_use_is_an_error_that_names_it() {
    let long = "x".repeat((64 << 10) + 1);
    let files: [(&str, &[u8]); 6] = [
        (
            "platform.toml",
            b"[auth]\nmode = \"jwt\"\njwt_secret = \"canary-canary-canary-canary-canary\"\n",
        ),
        ("empty", b" \n"),
        ("binary", b"canary\xff"),
        ("quoted", b"\"canary-canary-canary-canary-canary\"\n"),
        ("long", long.as_bytes()),
        ("short", b"canary\n"),
    ];
    for (file, reason) in [
        ("missing", "cannot be read"),
        (".", "is not a file"),
        ("empty", "is empty"),
        ("binary", "is not UTF-8"),
        ("quoted", "quotes"),
        ("long", "is larger than"),
        ("short", "is 6 bytes long"),
    ] {
        for variable in ["JWT_SECRET_FILE", "SIGNALBOX_AUTH__JWT_SECRET_FILE"] {
            let checked = check(&files, &[(variable, file)]).await;
            assert_eq!(checked.code, Some(2), "{file}");
            let start = format!("{variable}: auth.jwt_secret: ");
            assert!(checked.stderr.starts_with(&start), "{}", checked.stderr);
            assert!(
                checked.stderr.contains(reason),
                "{file}: {}",
                checked.stderr
            );
            assert!(!checked.stderr.contains(CANARY), "{}", checked.stderr);
        }
    }
    for (variable, other) in [
        ("JWT_SECRET_FILE", "JWT_SECRET"),
        ("SIGNALBOX_ADMIN__KEY_FILE", "SIGNALBOX_ADMIN__KEY"),
    ] {
        let both = [(variable, "short"), (other, SECRET)];
        let checked = check(&files, &both).await;
        assert_eq!(checked.code, Some(2));
        assert!(
            checked.stderr.contains(&format!("so is {other}; keep one")),
            "{}",
            checked.stderr
        );
    }
    // Only secrets have `_FILE` variables.
    let unknown = check(&files, &[("SIGNALBOX_SERVER__LISTEN_FILE", "short")]).await;
    assert_eq!(unknown.code, Some(2));
    let mistyped = check(&files, &[("SIGNALBOX_AUTH__JWT_SECRT_FILE", "short")]).await;
    let meant = "did you mean SIGNALBOX_AUTH__JWT_SECRET_FILE";
    assert!(mistyped.stderr.contains(meant), "{}", mistyped.stderr);
}

#[tokio::test]
async fn no_secret_is_in_the_log_at_any_level_nor_in_the_output_of_check_and_admin() {
    let config = format!(
        "[auth]\nmode = \"jwt\"\njwt_secret_previous = \"{SECRET}-previous\"\n[broker]\nkind = \"redis\"\n\
         [redis]\nmode = \"single\"\nurl = \"redis://{CANARY}:{CANARY}@127.0.0.1:1\"\n{WITH_CHAT}\
         config = {{ blocked_words = [], max_text_chars = 10 }}\n"
    );
    let keys: &[u8] = b"canary-canary-canary-api-1\ncanary-canary-canary-api-2\n";
    let files: [(&str, &[u8]); 3] = [
        ("platform.toml", config.as_bytes()),
        (".env", b"SIGNALBOX_ADMIN__KEY=canary-canary-canary-admin\n"),
        ("keys", keys),
    ];
    let environment = [
        ("WSS_PORT", "0"),
        ("RUST_LOG", "trace"),
        ("JWT_SECRET", SECRET),
        ("SIGNALBOX_API__KEYS_FILE", "keys"),
    ];
    let checked = check(&files, &environment).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(!(checked.stdout + &checked.stderr).contains(CANARY));

    let mut server = Server::start_with(&files[1..], &config, &environment).await;
    let operator = "GET /admin/config HTTP/1.1\r\nAuthorization: Bearer canary-canary-canary-admin";
    let shown = server.http(operator).await;
    assert_eq!(shown.status, 200);
    assert!(!shown.body.contains(CANARY), "{}", shown.body);
    // Rejected keys and tokens must not be logged either.
    let wrong = "GET /admin/config HTTP/1.1\r\nAuthorization: Bearer canary-wrong";
    assert_eq!(server.http(wrong).await.status, 401);
    assert_eq!(
        server
            .refused("/ws?token=canary.canary.canary", &[])
            .await
            .status,
        401
    );
    // An invalid change.
    server.configure(&config.replace("canary@", "canary-2@"));
    server.until_log("configuration applied").await;
    server.configure(&config.replace("[redis]", "[admin]\nkey = \" canary\"\n[redis]"));
    server.until_log("configuration refused").await;
    server.until_log("Redis cannot be reached").await;
    server.signal(Signal::TERM);
    server.exit().await;
    for line in server.log() {
        assert!(!line.contains(CANARY), "{line}");
    }
}
