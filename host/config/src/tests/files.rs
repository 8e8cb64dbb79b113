//! Files in `testdata`, and the expected results of reading them.

use super::*;

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
    let chat = RoomRule {
        history: Some(HistoryRule {
            size: 1_000,
            time: Duration::from_secs(300),
        }),
        join: JoinRule::Claim,
        send: SendRule::Members,
        presence: true,
        members_max: 5_000,
    };
    let news = RoomRule {
        history: Some(HistoryRule {
            size: 10,
            time: Duration::from_secs(30 * 24 * 3_600),
        }),
        join: JoinRule::Backend,
        send: SendRule::Backend,
        presence: false,
        members_max: 0,
    };
    assert_eq!(
        config.rooms,
        RoomsConfig::new([("chat:*", chat), ("news", news)])
    );
    let presence = PresenceConfig {
        grace: Duration::from_secs(10),
        flush: Duration::from_secs(2),
        members_max: 100,
    };
    assert_eq!(config.presence, presence);
    assert_eq!(config.limits.history_replay_max, 1_000);
    assert_eq!(config.limits.history_bytes_max, 1 << 30);
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
fn a_missing_named_file_is_an_error_with_advice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("other.toml");
    let errors = Config::load(Some(&path), &Environment::new()).expect_err("the file is missing");
    let text = errors.to_string();
    assert!(text.contains("other.toml: cannot be read"), "{text}");
    assert!(text.contains("name another file with --config"), "{text}");
}
