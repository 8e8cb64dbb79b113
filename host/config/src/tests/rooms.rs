//! `[[rooms]]` and `[users]`.

use super::*;

const RULE: &str = "[[rooms]]\nmatch = \"a\"\nhistory = { size = 1, time = \"1s\" }\njoin = \"open\"\nsend = \"members\"\npresence = true\nmembers_max = 3\n";

fn load(text: &str) -> Config {
    Config::parse(text, Path::new("/srv/platform.toml"), &Environment::new())
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_key_of_a_rule_but_its_match_has_a_default() {
    let config = parse("[[rooms]]\nmatch = \"a\"\n").expect("valid");
    assert_eq!(config.rooms, RoomsConfig::new([("a", RoomRule::default())]));
    assert!(!config.rooms.has_histories());
}

#[test]
fn a_history_is_written_in_one_line_with_dots_or_as_a_section() {
    let rule = "[[rooms]]\nmatch = \"a\"\n";
    let histories = [
        "history = { size = 7, time = \"2m\" }\n",
        "history.size = 7\nhistory.time = \"2m\"\n",
        "[rooms.history]\nsize = 7\ntime = \"2m\"\n",
    ];
    for history in histories {
        let config = parse(&format!("{rule}{history}")).expect(history);
        let expected = HistoryRule {
            size: 7,
            time: Duration::from_secs(120),
        };
        assert_eq!(config.rooms.rule("a").history, Some(expected), "{history}");
        assert!(config.rooms.has_histories());
    }
    let config = parse(&format!("{rule}history = {{}}\n")).expect("valid");
    assert_eq!(config.rooms.rule("a").history, None);
}

#[test]
fn users_have_a_history_with_the_bounds_of_rooms_if_the_file_says_so() {
    for off in ["", "[users]\n", "[users]\nhistory = {}\n"] {
        assert_eq!(load(off).users, UsersConfig::default(), "{off}");
    }
    let users = "[users]\nhistory = { size = 50, time = \"2m\" }\n";
    let (size, time) = (50, Duration::from_secs(120));
    assert_eq!(load(users).users.history, Some(HistoryRule { size, time }));
    for (from, to) in [
        ("50", "0"),
        ("50", "10001"),
        ("2m", "999ms"),
        ("2m", "31days"),
    ] {
        let text = users.replace(from, to);
        let rule = RULE.replace(
            "history = { size = 1, time = \"1s\" }",
            text.lines().nth(1).unwrap(),
        );
        let of = |text: &str, key: &str| {
            let error = only_error(text, &[]);
            let (_, message) = error.split_once(key).unwrap_or_else(|| panic!("{error}"));
            // The examples differ.
            let (message, _) = message.split_once(" such as ").unwrap_or((message, ""));
            message.to_owned()
        };
        assert_eq!(of(&text, "users.history."), of(&rule, "rooms[0].history."));
    }
    let message = only_error("[users]\nhistory.time = \"2m\"\n", &[]);
    assert!(
        message.contains("users.history.size: is required with history.time"),
        "{message}"
    );
}

#[test]
fn the_history_of_users_is_live() {
    let users = "[users]\nhistory = { size = 50, time = \"2m\" }\n";
    let smaller = difference(&load(users), &load(&users.replace("50", "40")));
    assert_eq!(smaller.live, ["users.history.size"]);
    let on = difference(&load(""), &load(users));
    assert_eq!(on.live, ["users.history.size", "users.history.time"]);
    assert!(on.restart.is_empty() && smaller.restart.is_empty());
}

#[test]
fn every_word_for_joining_and_sending_has_its_meaning() {
    for (join, expected) in [
        ("open", JoinRule::Open),
        ("claim", JoinRule::Claim),
        ("backend", JoinRule::Backend),
    ] {
        let text = RULE.replace("\"open\"", &format!("{join:?}"));
        assert_eq!(load(&text).rooms.rule("a").join, expected, "{join}");
    }
    for (send, expected) in [
        ("members", SendRule::Members),
        ("backend", SendRule::Backend),
    ] {
        let text = RULE.replace("\"members\"", &format!("{send:?}"));
        assert_eq!(load(&text).rooms.rule("a").send, expected, "{send}");
    }
}

#[test]
fn every_key_of_a_rule_is_live() {
    let before = load(RULE);
    for (old, new, name) in [
        ("\"a\"", "\"b\"", "rooms[0].match"),
        ("size = 1", "size = 2", "rooms[0].history.size"),
        ("\"1s\"", "\"2s\"", "rooms[0].history.time"),
        ("\"open\"", "\"claim\"", "rooms[0].join"),
        ("\"members\"", "\"backend\"", "rooms[0].send"),
        ("max = 3", "max = 4", "rooms[0].members_max"),
    ] {
        let difference = difference(&before, &load(&RULE.replace(old, new)));
        let expected = ConfigDifference {
            live: vec![name.to_owned()],
            restart: vec![],
        };
        assert_eq!(difference, expected);
    }
}

#[test]
fn presence_settings_are_live_too() {
    let rule = RULE.replace("members_max = 3\n", "");
    let off = rule.replace("presence = true", "presence = false");
    let difference = difference(&load(&rule), &load(&off));
    assert_eq!(difference.live, ["rooms[0].presence"]);
    assert!(difference.restart.is_empty());
}

#[test]
fn members_are_limited_only_if_they_are_counted() {
    let rule = load(RULE).rooms.rule("a").to_owned();
    assert_eq!((rule.presence, rule.members_max), (true, 3));
    let uncounted = RULE.replace("presence = true\n", "");
    assert_eq!(
        only_error(&uncounted, &[]),
        "/srv/platform.toml:6:15: rooms[0].members_max: is for rooms whose members are counted; set presence = true, or remove it"
    );
    let unlimited = uncounted.replace("members_max = 3", "members_max = 0");
    assert_eq!(load(&unlimited).rooms.rule("a").members_max, 0);
}

#[test]
fn rules_that_come_or_go_are_a_live_difference() {
    let two = RULE.to_owned() + &RULE.replace("\"a\"", "\"b\"");
    let without_history = RULE.replace("history", "#history");
    for other in ["", two.as_str(), without_history.as_str()] {
        let difference = difference(&load(RULE), &load(other));
        assert!(!difference.live.is_empty() && difference.restart.is_empty());
    }
}

#[test]
fn a_variable_for_rooms_is_an_error_that_names_the_file() {
    for variable in [
        "SIGNALBOX_ROOMS",
        "SIGNALBOX_ROOMS__MATCH",
        "SIGNALBOX_ROOMS__CHAT__HISTORY__SIZE",
    ] {
        let error = only_error(RULE, &[(variable, "1")]);
        let expected = format!("{variable}: unknown variable; rules for rooms have none");
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.ends_with("write [[rooms]] in the file"), "{error}");
    }
}

#[test]
fn an_element_of_the_list_that_is_no_table_is_an_error() {
    assert_eq!(
        only_error("rooms = [1]", &[]),
        "/srv/platform.toml:1:10: rooms[0]: expected a table; write [[rooms]]"
    );
}

#[test]
fn rooms_that_need_tokens_need_keys_to_verify_them() {
    let rule = "[[rooms]]\nmatch = \"a\"\njoin = \"token\"\n";
    assert_eq!(
        only_error(rule, &[]),
        "/srv/platform.toml:3:8: rooms[0].join: \"token\" needs keys that verify tokens: set auth.mode = \"jwt\" with a key, or choose another value"
    );
    let keys = "[auth]\nmode = \"jwt\"\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n";
    let config = load(&format!("{keys}{rule}"));
    assert_eq!(config.rooms.rule("a").join, JoinRule::Token);
    // A mode that is missing its key is one error, not two.
    let without_key = format!("[auth]\nmode = \"jwt\"\n{rule}");
    assert!(only_error(&without_key, &[]).contains("needs a key"));
}
