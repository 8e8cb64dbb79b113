//! `[[webhooks]]`.

use super::*;

const WEBHOOK: &str = "[[webhooks]]\nurl = \"https://a.example/hook\"\nsecret = \"0123456789abcdef0123456789abcdef\"\nevents = [\"connected\"]\n";

fn load(text: &str) -> Config {
    Config::parse(text, Path::new("/srv/platform.toml"), &Environment::new())
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn url_secret_and_events_are_enough() {
    let webhooks = load(WEBHOOK).webhooks;
    let [webhook] = webhooks.as_slice() else {
        panic!("{webhooks:?}");
    };
    assert_eq!(webhook.events, [WebhookEvent::Connected]);
    assert_eq!(
        (webhook.label.as_str(), webhook.batch_max, webhook.queue_max),
        ("a.example", 100, 10_000)
    );
    assert_eq!(webhook.batch_time, Duration::from_secs(1));
    assert_eq!(webhook.timeout, Duration::from_secs(10));
    assert!(webhook.is_for_room("any") && webhook.secret_previous.is_none());
}

#[test]
fn every_event_has_a_name_and_an_unknown_one_is_an_error_that_names_the_nearest() {
    for event in WebhookEvent::ALL {
        let text = WEBHOOK.replace("connected", event.as_str());
        assert_eq!(load(&text).webhooks[0].events, [event]);
    }
    for (written, expected) in [
        (
            "conected",
            "\"conected\" is not an event; did you mean connected",
        ),
        (
            "message",
            "\"message\" is not an event; the known ones are connected, disconnected",
        ),
    ] {
        let error = only_error(&WEBHOOK.replace("connected", written), &[]);
        assert!(
            error.contains("webhooks[0].events[0]") && error.contains(expected),
            "{error}"
        );
    }
    let error = only_error(&WEBHOOK.replace("\"connected\"", ""), &[]);
    assert!(error.contains("webhooks[0].events: is empty"), "{error}");
}

#[test]
fn missing_and_invalid_settings_are_named_without_secrets() {
    for (old, new, expected) in [
        (
            "url = \"https://a.example/hook\"\n",
            "",
            "webhooks[0].url: is missing",
        ),
        (
            "secret = \"0123456789abcdef0123456789abcdef\"\n",
            "",
            "webhooks[0].secret: is missing",
        ),
        (
            "events = [\"connected\"]\n",
            "",
            "webhooks[0].events: is missing",
        ),
        (
            "0123456789abcdef0123456789abcdef",
            "hush",
            "webhooks[0].secret: is 4 bytes long",
        ),
        (
            "secret",
            "secret_previous = \"hush\"\nsecret",
            "webhooks[0].secret_previous: is 4 bytes long",
        ),
        (
            "https://a.example/hook",
            "ftp://a.example",
            "webhooks[0].url",
        ),
        ("https://", "https://hush:hush@", "holds a user or password"),
        ("/hook", "/hook#1", "continues after #"),
        (
            "secret",
            "rooms = [\"a*b\"]\nsecret",
            "webhooks[0].rooms[0]",
        ),
        ("secret", "batch_max = 0\nsecret", "webhooks[0].batch_max"),
    ] {
        let error = only_error(&WEBHOOK.replacen(old, new, 1), &[]);
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn a_url_is_used_once_and_there_are_at_most_16_webhooks() {
    let error = only_error(&WEBHOOK.repeat(2), &[]);
    assert!(error.contains("webhooks[1].url"), "{error}");
    let numbered = |count: usize| -> String {
        let webhooks = (0..count).map(|n| WEBHOOK.replace("/hook", &format!("/{n}")));
        webhooks.collect()
    };
    let webhooks = load(&numbered(16)).webhooks;
    assert_eq!(
        (webhooks[0].label.as_str(), webhooks[15].label.as_str()),
        ("a.example", "a.example#16")
    );
    let error = only_error(&numbered(17), &[]);
    assert!(error.contains("webhooks[16]: is one too many"), "{error}");
}

#[test]
fn a_secret_may_be_in_a_file_which_is_watched() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = dir.path().join("platform.toml");
    let text = WEBHOOK.replace(
        "secret = \"0123456789abcdef0123456789abcdef\"",
        "secret_file = \"s\"\nsecret_previous_file = \"p\"",
    );
    let parse = || Config::parse(&text, &origin, &Environment::new());
    let missing = parse().expect_err("there are no files");
    assert_eq!(missing.errors().len(), 2, "{missing}");
    fs::write(dir.path().join("s"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(dir.path().join("p"), "fedcba9876543210fedcba9876543210\n").unwrap();
    let config = parse().unwrap_or_else(|errors| panic!("{errors}"));
    let webhook = &config.webhooks[0];
    assert_eq!(webhook.secret, "0123456789abcdef0123456789abcdef");
    assert_eq!(
        webhook.secret_previous.as_deref(),
        Some("fedcba9876543210fedcba9876543210")
    );
    let files = ["p", "s"].map(|name| dir.path().join(name));
    assert_eq!(
        config.secret_files.iter().cloned().collect::<Vec<_>>(),
        files
    );
    fs::write(dir.path().join("s"), "another-secret-of-more-than-32-bytes").unwrap();
    let changed = parse().expect("valid");
    assert_eq!(difference(&config, &changed).live, ["webhooks[0].secret"]);
    let shown = format!("{:?} {:?}", changed.webhooks, changed.shown);
    assert!(
        !shown.contains("another-secret") && !shown.contains("fedcba"),
        "{shown}"
    );
    fs::write(dir.path().join("s"), "short").unwrap();
    let short = parse().expect_err("it is too short").to_string();
    assert!(
        short.contains("webhooks[0].secret: is 5 bytes long"),
        "{short}"
    );
    let both = text.replace(
        "secret_file",
        "secret = \"0123456789abcdef0123456789abcdef\"\nsecret_file",
    );
    let both = Config::parse(&both, &origin, &Environment::new())
        .expect_err("two secrets")
        .to_string();
    assert!(
        both.contains("webhooks[0].secret_file: is set, and so is secret"),
        "{both}"
    );
}

#[test]
fn every_key_of_a_webhook_is_live() {
    let before = load(WEBHOOK);
    for (line, name) in [
        ("rooms = [\"a\"]", "rooms"),
        (
            "secret_previous = \"fedcba9876543210fedcba9876543210\"",
            "secret_previous",
        ),
        ("batch_max = 1", "batch_max"),
        ("batch_time = \"0s\"", "batch_time"),
        ("timeout = \"1s\"", "timeout"),
        ("queue_max = 1", "queue_max"),
    ] {
        let difference = difference(&before, &load(&format!("{WEBHOOK}{line}\n")));
        assert_eq!(
            (difference.live, difference.restart),
            (vec![format!("webhooks[0].{name}")], vec![])
        );
    }
    let none = difference(&before, &load(""));
    assert!(!none.live.is_empty() && none.restart.is_empty());
}

#[test]
fn a_variable_for_webhooks_is_an_error_that_names_the_file() {
    let error = only_error(WEBHOOK, &[("SIGNALBOX_WEBHOOKS__0__SECRET", "1")]);
    assert!(
        error.contains("unknown variable; webhooks have none"),
        "{error}"
    );
}

#[test]
fn webhooks_without_tls_are_warned_about() {
    let told = |url: &str| load(&WEBHOOK.replace("https://a.example/hook", url)).advice;
    assert!(told("http://a.example/hook")[0].starts_with("webhooks[0].url has no TLS"));
    for url in [
        "https://a.example",
        "http://127.0.0.1:1/",
        "http://localhost/",
    ] {
        assert_eq!(told(url), [""; 0], "{url}");
    }
}
