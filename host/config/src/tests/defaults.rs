//! The defaults, also those in `platform.toml` and `.env.example`.

use super::*;

#[test]
fn an_empty_configuration_has_the_defaults_of_the_contract() {
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
    assert_eq!(config.token_times.grace, Duration::from_secs(25));
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(config.token_times.revocation_max, day);
    assert_eq!(config.broker, BrokerConfig::Memory);
    assert_eq!(config.rooms, RoomsConfig::default());
    assert_eq!(config.presence, PresenceConfig::default());
    assert!(config.webhooks.is_empty());
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
        !Path::new(crate::DEFAULT_FILE).exists(),
        "tests run in the folder of the crate, which has none"
    );
    assert_eq!(
        Config::load(None, &Environment::new()),
        Ok(Config::default())
    );
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

/// The example of a rule for rooms.
fn chat_rule() -> RoomRule {
    RoomRule {
        history: Some(HistoryRule {
            size: 100,
            time: Duration::from_secs(300),
        }),
        ..RoomRule::default()
    }
}

/// The example of a webhook.
fn example_webhook() -> WebhookConfig {
    WebhookConfig {
        url: "https://backend.example.com/signalbox".to_owned(),
        label: "backend.example.com".to_owned(),
        secret: "replace-it-by-openssl-rand-hex-32".to_owned(),
        secret_previous: None,
        events: vec![WebhookEvent::Connected, WebhookEvent::Disconnected],
        rooms: Vec::new(),
        batch_max: 100,
        batch_time: Duration::from_secs(1),
        timeout: Duration::from_secs(10),
        queue_max: 10_000,
    }
}

/// The rule of `platform.toml` for the demo page.
fn every_room() -> RoomRule {
    RoomRule {
        history: Some(HistoryRule {
            size: 100,
            time: Duration::from_secs(3600),
        }),
        presence: true,
        ..RoomRule::default()
    }
}

#[test]
fn platform_toml_is_the_defaults_with_the_chat_plugin_and_rooms_with_history_and_presence() {
    let text = read(&at_the_top("platform.toml"));
    let mut expected = parse("").expect("nothing is required");
    expected.plugins.push(chat());
    expected.rooms = RoomsConfig::new([("*", every_room())]);
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
                .filter(|rest| setting(rest) || rest.starts_with("[["))
                .unwrap_or(line)
        })
        .collect();
    let mut expected = parse("").expect("nothing is required");
    expected.plugins.push(chat());
    expected.rooms = RoomsConfig::new([("*", every_room()), ("chat:*", chat_rule())]);
    let (size, time) = (50, Duration::from_secs(120));
    expected.users.history = Some(HistoryRule { size, time });
    expected.webhooks = vec![example_webhook()];
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
        let name = key.name.split('.').next().unwrap_or_default();
        assert!(
            shown.contains(&(key.section, name)),
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
    let (files, environment): (Environment, Environment) = environment
        .into_iter()
        .partition(|(name, _)| name.ends_with("_FILE"));
    let known: Vec<String> = KEYS.iter().filter_map(Key::file_variable).collect();
    assert!(files.keys().all(|name| known.contains(name)), "{files:?}");
    let platform = read(&at_the_top("platform.toml"));
    let result = Config::parse(&platform, Path::new("/srv/platform.toml"), &environment);
    assert!(result.is_ok(), "{result:?}");
}
