//! The table of keys, and differences between configurations.

use super::*;

/// The other settings that a key needs to have an effect.
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
        ("users", _) => vec![
            ("SIGNALBOX_USERS__HISTORY__SIZE", "7"),
            ("SIGNALBOX_USERS__HISTORY__TIME", "7m"),
        ],
        ("tracing", "sample_ratio" | "traces_per_second") => {
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")]
        }
        _ => vec![],
    }
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in KEYS.iter().filter(|key| key.has_variable()) {
        let variable = key.variable().replace("__NAME__", "__MY_CHAT__");
        let mut environment = companions(key);
        let result = parse_with(ONE_PLUGIN, &environment);
        let mut before = result.unwrap_or_else(|errors| panic!("{errors}"));
        environment.push((&variable, key.example));
        // Each of these replaces the secret, so it is compared with another of them.
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
fn a_changed_key_is_named_and_needs_a_restart_as_the_table_specifies() {
    let read = |environment: &[(&str, &str)]| {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::parse(ONE_PLUGIN, Path::new("/srv/platform.toml"), &environment)
            .unwrap_or_else(|errors| panic!("{errors}"))
    };
    for key in KEYS.iter().filter(|key| key.has_variable()) {
        let variable = key.variable().replace("__NAME__", "__MY_CHAT__");
        let mut environment = match key.name {
            // Mode `jwt` accepts only one source.
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
fn a_configuration_is_identified_by_all_that_affects_the_plugin_and_nothing_else() {
    let plugin = |more: &str| {
        let config = parse(&format!("{ONE_PLUGIN}{more}")).expect("it is valid");
        config.plugins[0].clone()
    };
    let same = plugin("");
    let elsewhere = PluginConfig {
        path: "/elsewhere.wasm".into(),
        ..same.clone()
    };
    let tried_first = PluginConfig {
        rollout: Some(RolloutConfig::Shadow),
        ..same.clone()
    };
    for other in [&elsewhere, &tried_first] {
        assert_eq!(same.identity(), other.identity());
        assert!(same.makes_same_version(other));
    }
    for different in [
        "call_cpu_max = \"11ms\"\n",
        "on_failure = \"pass\"\n",
        "instances = \"single\"\n",
        "config = { greeting = \"hello\" }\n",
    ] {
        assert!(!same.makes_same_version(&plugin(different)), "{different}");
    }
}
