//! The configuration as a whole: files in `testdata` against what is expected of them, and the table of keys
//! against the reader, the environment, `platform.toml`, `.env.example` and the reference manual.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;
use signalbox_protocol::event_type::Patterns;

use super::{
    AllowedOrigins, AuthConfig, BrokerConfig, CloudWatchConfig, Config, ConfigErrors, Environment,
    EventsConfig, InstanceMode, JwtKeySource, Limits, OnFailure, PluginConfig, PluginLimits,
    PluginVersionsConfig, ProbationConfig, RedisCompat, RedisConfig, RedisMode, RolloutConfig,
    Shown, StorageResolution, TracingConfig,
    keys::{self, ChangeEffect, KEYS, Key, ValueKind},
    live::{ConfigDifference, Resolved, difference},
    values,
};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
}

fn at_the_top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, &[])
}

fn parse_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = Config::parse(
        text,
        Path::new("/srv/platform.toml"),
        &environment.collect(),
    )?;
    // Say the same in other words, and of keys that mean nothing here too: they would only be in the way of comparing.
    Ok(Config {
        shown: Shown::default(),
        resolved: Resolved::default(),
        ..config
    })
}

/// The one error that a text and an environment have.
fn only_error(text: &str, environment: &[(&str, &str)]) -> String {
    let errors = parse_with(text, environment)
        .expect_err("this is wrong")
        .to_string();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

/// Compares a file with what it should hold, or writes it where `UPDATE_SNAPSHOTS` is set.
fn assert_snapshot(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(path, actual).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        expected,
        actual,
        "{}: run again with UPDATE_SNAPSHOTS=1 if this is right",
        path.display()
    );
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(here(folder)).expect("the folder of test data");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

#[test]
fn every_invalid_file_gives_exactly_its_errors() {
    for path in toml_files("testdata/invalid") {
        let origin = Path::new(path.file_name().expect("a file's name"));
        let result = Config::parse(&read(&path), origin, &Environment::new());
        let errors = result.expect_err(&path.display().to_string());
        assert!(
            !errors.to_string().contains("hush"),
            "a secret is shown: {errors}"
        );
        assert_snapshot(&path.with_extension("errors"), &format!("{errors}\n"));
    }
}

#[test]
fn every_valid_file_loads() {
    for path in toml_files("testdata/valid") {
        if let Err(errors) = Config::load(Some(&path), &Environment::new()) {
            panic!("{errors}");
        }
    }
}

#[test]
fn a_file_with_every_key_is_read_to_the_last_of_them() {
    let path = here("testdata/valid/everything.toml");
    let config = Config::parse(
        &read(&path),
        Path::new("/srv/platform.toml"),
        &Environment::new(),
    )
    .expect("valid");
    assert_eq!(config.server.listen.to_string(), "[::1]:9000");
    assert_eq!(config.server.idle_timeout, Duration::from_secs(90));
    let origins = ["https://app.example.com", "http://localhost:3000"].map(str::to_owned);
    assert!(config.server.trace_plugins);
    assert_eq!(
        config.server.allowed_origins,
        AllowedOrigins::List(origins.to_vec())
    );
    let AuthConfig::Jwt(jwt) = &config.auth else {
        panic!("{:?}", config.auth)
    };
    assert_eq!(
        jwt.keys,
        JwtKeySource::Secrets {
            current: "0123456789abcdef0123456789abcdef".to_owned(),
            previous: Some("fedcba9876543210fedcba9876543210".to_owned()),
        }
    );
    assert_eq!(jwt.audience.as_deref(), Some("chat"));
    let redis = RedisConfig {
        urls: vec![
            "rediss://a.example.com:6380".to_owned(),
            "rediss://b.example.com".to_owned(),
        ],
        mode: RedisMode::Cluster,
        sentinel_master: Some("mymaster".to_owned()),
        ca_file: Some("/srv/ca.pem".into()),
        compat: RedisCompat::WebsocketApp,
        key_prefix: "chat:".to_owned(),
        command_timeout: Duration::from_secs(1),
    };
    assert_eq!(config.broker, BrokerConfig::Redis(redis));
    let client = Patterns::parse(&["chat_message", "game.*"]).expect("legal");
    assert_eq!(config.events, EventsConfig { client });
    assert_eq!(config.limits.frame_bytes_max, 1 << 20);
    assert_eq!(
        (
            config.limits.messages_per_second,
            config.limits.messages_burst
        ),
        (0, 100)
    );
    assert_eq!(config.limits.plugin_file_bytes_max, 10_000_000);
    let cloudwatch = CloudWatchConfig {
        namespace: "chat/metrics".to_owned(),
        region: Some("eu-central-1".to_owned()),
        endpoint: Some("http://127.0.0.1:5000".to_owned()),
        interval: Duration::from_secs(5),
        storage_resolution: StorageResolution::Second,
    };
    assert_eq!(config.cloudwatch, Some(cloudwatch));
    assert!(!config.metrics.prometheus);
    assert!(config.demo.enabled);
    let tracing = TracingConfig {
        otlp_endpoint: "https://otlp.example.com".to_owned(),
        sample_ratio: 1.0,
        traces_per_second: 10,
    };
    assert_eq!(config.tracing, Some(tracing));
    assert_eq!(
        config.admin.key.as_deref(),
        Some("an-admin-key-for-examples")
    );
    assert_eq!(config.admin.upload_timeout, Duration::from_secs(300));
    assert_eq!(
        config.api.keys,
        ["first-key-for-examples", "second-key-for-examples"]
    );
    assert_eq!(config.plugin_cache_dir, None);
    let versions = PluginVersionsConfig {
        dir: Some("/var/lib/signalbox/versions".into()),
        keep: 2,
    };
    assert_eq!(config.plugin_versions, versions);
    let probation = ProbationConfig {
        time: Duration::from_secs(120),
        calls: 200,
        failure_percent: 20,
        calls_min: 50,
        users_min: 5,
    };
    assert_eq!(config.plugin_probation, probation);

    let [chat, game] = config.plugins.as_slice() else {
        panic!("{:?}", config.plugins)
    };
    assert_eq!(chat.path, Path::new("/srv/chat.wasm"));
    assert_eq!(chat.on_failure, OnFailure::Pass);
    assert_eq!(chat.instances, InstanceMode::Pool { max: 4, min: 1 });
    assert_eq!(
        chat.config_json,
        r#"{"words":["b","a"],"since":"2026-01-02","limits":{"length":10}}"#
    );
    let limits = PluginLimits {
        memory_max: 16 << 20,
        call_cpu_max: Duration::from_millis(5),
        call_time_max: Duration::from_millis(100),
        init_time_max: Duration::from_secs(2),
        compile_time_max: Duration::from_secs(300),
        actions_max: 16,
        output_bytes_max: 64 << 10,
        instances_idle_time: Duration::from_secs(300),
        handover_time_max: Duration::from_millis(100),
        handover_bytes_max: 64 << 10,
        store_value_bytes_max: 4 << 10,
        store_key_bytes_max: 64,
        store_calls_max: 8,
        store_bytes_max: 1 << 20,
        log_lines_per_second: 10,
    };
    assert_eq!(chat.limits, limits);
    assert_eq!(chat.rollout, Some(RolloutConfig::Canary { percent: 20 }));
    assert_eq!(game.rollout, None);
    assert_eq!(game.path, Path::new("/srv/game.wasm"));
    assert_eq!(game.instances, InstanceMode::Single);
    assert_eq!(game.config_json, "{}");
}

#[test]
fn a_new_version_may_be_tried_on_copies_first() {
    let text = "[[plugins]]\nname = \"a\"\npath = \"a.wasm\"\nevents = [\"*\"]\nrollout = { mode = \"shadow\" }\n";
    let config = parse(text).expect("it is right");
    assert_eq!(config.plugins[0].rollout, Some(RolloutConfig::Shadow));
}

#[test]
fn no_text_gives_the_defaults_of_the_contract() {
    let config = parse("").expect("nothing is required");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.drain_timeout, Duration::from_secs(8));
    assert_eq!(config.server.ping_interval, Duration::from_secs(25));
    assert_eq!(config.server.idle_timeout, Duration::from_secs(60));
    assert_eq!(config.server.allowed_origins, AllowedOrigins::SameHost);
    assert!(!config.server.trace_plugins);
    assert!((1..=64).contains(&config.server.node_id.len()));
    assert_eq!(
        config.auth,
        AuthConfig::None {
            allow_insecure: false
        }
    );
    assert_eq!(config.broker, BrokerConfig::Memory);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.cloudwatch, None);
    assert!(config.metrics.prometheus);
    assert!(!config.demo.enabled);
    assert_eq!(config.tracing, None);
    assert_eq!(config.admin.key, None);
    assert!(config.api.keys.is_empty());
    assert_eq!(
        config.plugin_cache_dir.as_deref(),
        Some(Path::new("/srv/.signalbox/cache"))
    );
    let versions = PluginVersionsConfig {
        dir: Some("/srv/.signalbox/versions".into()),
        keep: 5,
    };
    assert_eq!(config.plugin_versions, versions);
    assert_eq!(config.plugin_probation, ProbationConfig::default());
    assert!(config.plugins.is_empty());
    let here = Config::parse("", Path::new("platform.toml"), &Environment::new());
    assert_eq!(here.as_ref(), Ok(&Config::default()));
}

#[test]
fn without_a_file_the_defaults_hold() {
    assert!(
        !Path::new(super::DEFAULT_FILE).exists(),
        "tests run in the folder of the crate, which has none"
    );
    assert_eq!(
        Config::load(None, &Environment::new()),
        Ok(Config::default())
    );
}

#[test]
fn a_named_file_that_is_missing_is_an_error_and_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("other.toml");
    let errors = Config::load(Some(&path), &Environment::new()).expect_err("the file is missing");
    let text = errors.to_string();
    assert!(text.contains("other.toml: cannot be read"), "{text}");
    assert!(text.contains("name another file with --config"), "{text}");
}

fn chat() -> PluginConfig {
    let events = [
        "chat_message",
        "chat.*",
        "notification",
        "roadmap_ready",
        "quiz_ready",
    ];
    PluginConfig {
        name: "chat".to_owned(),
        path: "/srv/target/plugins/chat.wasm".into(),
        events: events.map(str::to_owned).to_vec(),
        on_failure: OnFailure::Reject,
        instances: InstanceMode::Pool { max: 16, min: 2 },
        limits: PluginLimits::default(),
        rollout: None,
        config_json: r#"{"max_text_chars":4000,"blocked_words":[]}"#.to_owned(),
    }
}

#[test]
fn platform_toml_is_the_defaults_and_the_chat_plugin() {
    let text = read(&at_the_top("platform.toml"));
    let mut expected = parse("").expect("nothing is required");
    expected.plugins.push(chat());
    assert_eq!(parse(&text), Ok(expected));
}

#[test]
fn platform_toml_shows_every_key_with_its_default() {
    let text = read(&at_the_top("platform.toml"));
    let setting =
        |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(" = ");
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| setting(rest))
                .unwrap_or(line)
        })
        .collect();
    let mut expected = parse("").expect("nothing is required");
    expected.plugins.push(chat());
    assert_eq!(parse(&uncommented.join("\n")), Ok(expected));

    let mut section = "";
    let mut shown = Vec::new();
    for line in uncommented {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| setting(line)) {
            shown.push((section, name));
        }
    }
    for key in &KEYS {
        assert!(
            shown.contains(&(key.section, key.name)),
            "{} is missing",
            key.full_name()
        );
    }
}

#[test]
fn env_example_names_only_variables_that_are_known() {
    let text = read(&at_the_top(".env.example"));
    let mut environment = Environment::new();
    for line in text.lines() {
        if let Some((name, value)) = line.strip_prefix('#').and_then(|line| line.split_once('='))
            && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, _) in keys::OLD_VARIABLES {
        assert!(environment.contains_key(name), "{name} is missing");
    }
    for name in keys::RESERVED_VARIABLES {
        assert!(environment.contains_key(name), "{name} is missing");
    }
    let (files, mut environment): (Environment, Environment) = environment
        .into_iter()
        .partition(|(name, _)| name.ends_with("_FILE"));
    let known: Vec<String> = KEYS.iter().filter_map(Key::file_variable).collect();
    assert!(files.keys().all(|name| known.contains(name)), "{files:?}");
    // Each has a place of its own in the file, and one of them is taken.
    environment.remove("SIGNALBOX_AUTH__JWT_SECRET_PREVIOUS");
    let platform = read(&at_the_top("platform.toml"));
    let result = Config::parse(&platform, Path::new("/srv/platform.toml"), &environment);
    assert!(result.is_ok(), "{result:?}");
}

/// What else must be set so that a key has an effect.
fn companions(key: &Key) -> Vec<(&'static str, &'static str)> {
    const SECRET: (&str, &str) = ("JWT_SECRET", "0123456789abcdef0123456789abcdef");
    const JWT: (&str, &str) = ("SIGNALBOX_AUTH__MODE", "jwt");
    const REDIS: (&str, &str) = ("SIGNALBOX_BROKER__KIND", "redis");
    match (key.section, key.name) {
        ("auth", "mode") => vec![SECRET],
        ("auth", "jwt_secret") => vec![JWT, ("JWT_SECRET", "fedcba9876543210fedcba9876543210")],
        ("auth", "jwt_secret_previous" | "jwt_issuer" | "jwt_audience") => vec![JWT, SECRET],
        ("auth", "jwks_refresh_interval") => vec![
            JWT,
            ("SIGNALBOX_AUTH__JWKS_URL", "https://login.example.com/keys"),
        ],
        ("redis", "ca_file") => vec![REDIS, ("REDIS_URI", "rediss://cache.example.com")],
        ("redis", _) => vec![REDIS],
        ("server", "proxy_protocol") => {
            vec![("SIGNALBOX_SERVER__TRUSTED_PROXIES", "10.0.0.0/8")]
        }
        ("cloudwatch", name) if name != "enabled" => {
            vec![("SIGNALBOX_CLOUDWATCH__ENABLED", "true")]
        }
        ("tracing", "sample_ratio" | "traces_per_second") => {
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")]
        }
        _ => vec![],
    }
}

const ONE_PLUGIN: &str =
    "[[plugins]]\nname = \"my-chat\"\npath = \"chat.wasm\"\nevents = [\"a\"]\n";

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in KEYS
        .iter()
        .filter(|key| (key.section, key.name) != ("plugins", "name"))
    {
        let variable = key.variable().replace("__NAME__", "__MY_CHAT__");
        let mut environment = companions(key);
        let result = parse_with(ONE_PLUGIN, &environment);
        let mut before = result.unwrap_or_else(|errors| panic!("{errors}"));
        environment.push((&variable, key.example));
        // Each of these takes the place of the secret: compared with the other of the two.
        if let ("auth", "jwt_key_file" | "jwks_file" | "jwks_url") = (key.section, key.name) {
            environment.push(("SIGNALBOX_AUTH__MODE", "jwt"));
            let other = if key.name == "jwt_key_file" {
                "SIGNALBOX_AUTH__JWKS_FILE"
            } else {
                "SIGNALBOX_AUTH__JWT_KEY_FILE"
            };
            before = parse_with(ONE_PLUGIN, &[("SIGNALBOX_AUTH__MODE", "jwt"), (other, "a")])
                .expect("valid");
        }
        let after =
            parse_with(ONE_PLUGIN, &environment).unwrap_or_else(|errors| panic!("{errors}"));
        assert_ne!(before, after, "{variable}");
    }
}

#[test]
fn a_key_is_named_where_it_differs_and_needs_a_restart_or_not_as_the_table_says() {
    let read = |environment: &[(&str, &str)]| {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::parse(ONE_PLUGIN, Path::new("/srv/platform.toml"), &environment)
            .unwrap_or_else(|errors| panic!("{errors}"))
    };
    for key in KEYS
        .iter()
        .filter(|key| (key.section, key.name) != ("plugins", "name"))
    {
        let variable = key.variable().replace("__NAME__", "__MY_CHAT__");
        let mut environment = match key.name {
            // Mode `jwt` takes one source alone.
            "jwt_key_file" | "jwks_file" | "jwks_url" => Vec::new(),
            _ => companions(key),
        };
        let before = read(&environment);
        environment.push((&variable, key.example));
        let difference = difference(&before, &read(&environment));
        let name = key.full_name().replace("NAME", "my-chat");
        let (named, other) = match key.change {
            ChangeEffect::Live => (difference.live, difference.restart),
            ChangeEffect::Restart => (difference.restart, difference.live),
        };
        assert_eq!((named, other), (vec![name], vec![]), "{variable}");
    }
    assert_eq!(
        difference(&read(&[]), &read(&[])),
        ConfigDifference::default()
    );
}

#[test]
fn the_login_to_redis_is_live_and_the_rest_of_its_address_is_not() {
    let read = |url: &str| {
        let environment = Environment::from([("REDIS_URI".to_owned(), url.to_owned())]);
        Config::parse("", Path::new("/srv/platform.toml"), &environment).expect("valid")
    };
    let old = read("redis://ann:one@a:6379,redis://b");
    let url = || vec!["redis.url".to_owned()];
    let login = difference(&old, &read("redis://eve:two@a:6379,redis://:two@b"));
    assert_eq!((login.live, login.restart), (url(), vec![]));
    for other in [
        "redis://ann:one@c:6379,redis://b",
        "redis://ann:one@a:6379",
        "redis://ann:one@a:6379/1,redis://b",
        "rediss://ann:two@a:6379,redis://b",
    ] {
        let other = difference(&old, &read(other));
        assert_eq!((other.live, other.restart), (vec![], url()));
    }
}

#[test]
fn plugins_that_come_go_or_change_places_are_a_difference() {
    let plugin = |name: &str| ONE_PLUGIN.replace("my-chat", name);
    let read = |text: &str| {
        Config::parse(text, Path::new("/srv/platform.toml"), &Environment::new()).expect("valid")
    };
    let both = read(&(plugin("a") + &plugin("b")));
    for other in [plugin("a"), plugin("b") + &plugin("a"), String::new()] {
        let difference = difference(&both, &read(&other));
        assert!(!difference.live.is_empty() && difference.restart.is_empty());
    }
}

#[test]
fn variables_win_over_the_file_and_our_names_over_the_old_ones() {
    let file = "[server]\nlisten = \"127.0.0.2:1000\"\n";
    let listen = |environment: &[(&str, &str)]| {
        parse_with(file, environment)
            .expect("valid")
            .server
            .listen
            .to_string()
    };
    assert_eq!(listen(&[]), "127.0.0.2:1000");
    assert_eq!(listen(&[("WSS_PORT", "")]), "127.0.0.2:1000");
    assert_eq!(listen(&[("WSS_PORT", "2000")]), "127.0.0.2:2000");
    assert_eq!(
        listen(&[
            ("WSS_PORT", "2000"),
            ("SIGNALBOX_SERVER__LISTEN", "127.0.0.3:3000")
        ]),
        "127.0.0.3:3000"
    );
}

#[test]
fn the_old_secret_does_not_switch_jwt_on() {
    let config = parse_with(
        "",
        &[("JWT_SECRET", "short"), ("ENVIRONMENT", "production")],
    )
    .expect("valid");
    assert_eq!(
        config.auth,
        AuthConfig::None {
            allow_insecure: false
        }
    );
}

#[test]
fn an_error_of_a_variable_names_it_and_the_key() {
    assert_eq!(
        only_error("", &[("SIGNALBOX_LIMITS__FRAME_BYTES_MAX", "1MX")]),
        "SIGNALBOX_LIMITS__FRAME_BYTES_MAX: limits.frame_bytes_max: found \"1MX\", which has an unknown unit; write \
         B, KB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024); expected a size from 128B to 16MiB such \
         as \"1MiB\""
    );
    assert_eq!(
        only_error("", &[("WSS_PORT", "70000")]),
        "WSS_PORT: server.listen: found \"70000\", expected a port from 0 to 65535"
    );
    let short = [("SIGNALBOX_AUTH__MODE", "jwt"), ("JWT_SECRET", "hush")];
    let error = only_error("", &short);
    assert!(
        error.starts_with("JWT_SECRET: auth.jwt_secret: is 4 bytes long"),
        "{error}"
    );
    assert!(!error.contains("hush"), "{error}");
    let twice = [("JWT_SECRET", "0123456789abcdef0123456789abcdef")];
    let error = only_error("[auth]\nmode = \"jwt\"\njwks_file = \"a\"", &twice);
    assert!(
        error.contains("auth.jwks_file: is a second key source beside auth.jwt_secret"),
        "{error}"
    );
}

#[test]
fn an_unknown_variable_is_an_error_that_names_the_nearest() {
    assert_eq!(
        only_error("", &[("SIGNALBOX_LIMITS__FRAME_BYTES_MX", "1")]),
        "SIGNALBOX_LIMITS__FRAME_BYTES_MX: unknown variable; did you mean SIGNALBOX_LIMITS__FRAME_BYTES_MAX"
    );
    assert_eq!(
        only_error(
            ONE_PLUGIN,
            &[("SIGNALBOX_PLUGINS__MYCHAT__MEMORY_MAX", "1MiB")]
        ),
        "SIGNALBOX_PLUGINS__MYCHAT__MEMORY_MAX: unknown variable; did you mean SIGNALBOX_PLUGINS__MY_CHAT__MEMORY_MAX"
    );
    let error = only_error("", &[("SIGNALBOX_COLOUR", "red")]);
    assert!(
        error.contains("settings are SIGNALBOX_<SECTION>__<KEY>"),
        "{error}"
    );
}

#[test]
fn a_variable_that_two_plugins_answer_to_is_an_error() {
    let plugins = ONE_PLUGIN.to_owned() + &ONE_PLUGIN.replace("my-chat", "my_chat");
    assert!(parse(&plugins).is_ok());
    let error = only_error(
        &plugins,
        &[("SIGNALBOX_PLUGINS__MY_CHAT__MEMORY_MAX", "1MiB")],
    );
    assert!(
        error.contains("plugins.my-chat and plugins.my_chat"),
        "{error}"
    );
}

#[test]
fn errors_of_file_and_environment_come_at_once() {
    let text = "[limits]\nmessages_burst = 0\ncolour = 1\n[cloudwatch]\nstorage_resolution = 7\n";
    let errors = parse_with(text, &[("SIGNALBOX_METRICS__PROMETHEUS", "on")])
        .expect_err("all of it is wrong");
    let places: Vec<String> = errors
        .to_string()
        .lines()
        .filter_map(|line| line.split(": ").next().map(str::to_owned))
        .collect();
    let file = "/srv/platform.toml";
    let expected = [
        format!("{file}:2:18"),
        format!("{file}:3:1"),
        format!("{file}:5:22"),
        "SIGNALBOX_METRICS__PROMETHEUS".to_owned(),
    ];
    assert_eq!(places, expected);
}

#[test]
fn debug_output_shows_no_secret() {
    let text = "[auth]\nmode = \"jwt\"\njwt_secret = \"hush-hush-hush-hush-hush-hush-hush\"\n\
                [admin]\nkey = \"hush-hush-hush-hush\"\n[api]\nkeys = [\"hush-hush-hush-hush\"]\n\
                [broker]\nkind = \"redis\"\n[redis]\nurl = \"redis://hush:hush@hush\"\n";
    assert!(!format!("{:?}", parse(text).expect("valid")).contains("hush"));
}

#[test]
fn no_error_shows_what_may_be_a_secret_even_in_a_key_that_is_none() {
    for (text, environment) in [
        ("[auth]\njwks_url = \"https://hush:hush@a/keys\"\n", None),
        ("[auth]\njwks_url = \"hush:hush@a/keys\"\n", None),
        ("[tracing]\notlp_endpoint = \"http://hush:hush@a\"\n", None),
        ("[cloudwatch]\nendpoint = \"hush:hush@a\"\n", None),
        (
            ONE_PLUGIN,
            Some(("SIGNALBOX_PLUGINS__MY_CHAT__CONFIG", "{\"key\":\"hush\"")),
        ),
        (
            ONE_PLUGIN,
            Some(("SIGNALBOX_PLUGINS__MY_CHAT__CONFIG", "hush")),
        ),
    ] {
        let error = only_error(text, environment.as_slice());
        assert!(!error.contains("hush"), "{error}");
    }
    let error = only_error(&format!("{ONE_PLUGIN}config = \"hush\"\n"), &[]);
    assert!(!error.contains("hush"), "{error}");
}

/// A default as it stands in a file.
fn toml_literal(key: &Key) -> String {
    match key.kind {
        ValueKind::Bool | ValueKind::Count(..) | ValueKind::Ratio | ValueKind::Table => {
            key.default.to_owned()
        }
        ValueKind::Texts(_) if key.default.is_empty() => "[]".to_owned(),
        _ => format!("\"{}\"", key.default),
    }
}

fn reference_table() -> String {
    let mut table = String::from(
        "| key | value | default | change | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for key in &KEYS {
        let is_required =
            key.section == "plugins" && ["name", "path", "events"].contains(&key.name);
        let default = if is_required {
            "–".to_owned()
        } else {
            format!("`{}`", toml_literal(key))
        };
        let change = match key.change {
            ChangeEffect::Live => "live",
            ChangeEffect::Restart => "restart",
        };
        let (name, value) = (key.full_name(), values::expected(key));
        table += &format!(
            "| `{name}` | {value} | {default} | {change} | {} |\n",
            key.meaning
        );
    }
    table
}

#[test]
fn the_reference_holds_the_table_of_keys() {
    const BEGIN: &str =
        "<!-- keys: written by the tests of the configuration with UPDATE_SNAPSHOTS=1 -->\n";
    const END: &str = "<!-- end of keys -->";
    let path = at_the_top("docs/configuration.md");
    let text = read(&path);
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    assert_snapshot(
        &path,
        &format!("{before}{BEGIN}{}{END}{after}", reference_table()),
    );
}

#[test]
fn the_reference_names_every_old_and_reserved_variable() {
    let text = read(&at_the_top("docs/configuration.md"));
    let old = keys::OLD_VARIABLES.map(|(name, _)| name);
    for name in old.iter().chain(&keys::RESERVED_VARIABLES) {
        assert!(text.contains(&format!("`{name}`")), "{name} is missing");
    }
}

fn environments() -> impl Strategy<Value = BTreeMap<String, String>> {
    let names: Vec<String> = KEYS
        .iter()
        .map(Key::variable)
        .chain(["WSS_PORT".to_owned(), "SIGNALBOX_X".to_owned()])
        .collect();
    prop::collection::btree_map(prop::sample::select(names), any::<String>(), 0..4)
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String, environment in environments()) {
        let _ = Config::parse(&text, Path::new("a.toml"), &environment).map_err(|errors| errors.to_string());
    }

    #[test]
    fn a_valid_file_with_any_stretch_replaced_is_read_or_refused(
        from in 0usize..2000,
        length in 0usize..40,
        put in prop_oneof![any::<String>(), "[\\[\\]\"'={}#.,\n a-z0-9-]{0,12}"],
    ) {
        let mut text = include_str!("testdata/valid/everything.toml").to_owned();
        let from = from.min(text.len());
        let to = (from + length).min(text.len());
        text.replace_range(from..to, &put);
        match Config::parse(&text, Path::new("a.toml"), &Environment::new()) {
            Ok(config) => prop_assert!(config.server.idle_timeout > config.server.ping_interval),
            Err(errors) => prop_assert!(!errors.errors().is_empty()),
        }
    }
}
