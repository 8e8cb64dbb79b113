//! The configuration in a form that can be shown: every key with its effective value, without secrets.

use serde_json::{Map, Value as Json};

use super::{
    keys::{ChangeEffect, KEYS, Key},
    settings::{Section, Settings},
    units,
    values::{ConfigValue, MASK},
};

/// Parts of a name in a plugin's `config` that mark its value as a secret.
const SECRET_WORDS: [&str; 8] = [
    "secret",
    "password",
    "passwd",
    "token",
    "key",
    "credential",
    "auth",
    "private",
];

/// Every key with its value, set or default, as `platform.toml` writes it; sections by name, `plugins` in the order of
/// the chain, `rooms` and `webhooks` in that of the file. A key without a value is left out. The value of a secret key is [`MASK`] if it is set, and empty if it is not. In a plugin's `config`, texts
/// and numbers whose names mark them as secret are masked, as are the user and the password in addresses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    sections: Map<String, Json>,
    plugins: Vec<Json>,
    rooms: Vec<Json>,
    webhooks: Vec<Json>,
}

impl Shown {
    pub(super) fn of(settings: &Settings) -> Self {
        let sections = settings.sections.values();
        Self {
            sections: sections
                .map(|section| (section.table.to_owned(), Json::Object(values(section))))
                .collect(),
            plugins: list(&settings.plugins),
            rooms: list(&settings.rooms),
            webhooks: list(&settings.webhooks),
        }
    }

    /// The effective configuration of a server that was started with `started` and has since read `new`: keys that need
    /// a restart keep their old values.
    pub fn in_force(started: &Self, new: &Self) -> Self {
        let mut shown = new.clone();
        for key in KEYS
            .iter()
            .filter(|key| key.change == ChangeEffect::Restart)
        {
            let old = started.sections.get(key.section);
            let old = old.and_then(|section| section.get(key.name)).cloned();
            let section = shown.sections.get_mut(key.section);
            if let (Some(old), Some(Json::Object(section))) = (old, section) {
                section.insert(key.name.to_owned(), old);
            }
        }
        shown
    }

    /// As one JSON object.
    pub fn json(&self) -> Json {
        let mut all = self.sections.clone();
        all.insert("plugins".to_owned(), Json::Array(self.plugins.clone()));
        all.insert("rooms".to_owned(), Json::Array(self.rooms.clone()));
        all.insert("webhooks".to_owned(), Json::Array(self.webhooks.clone()));
        Json::Object(all)
    }
}

fn list(sections: &[Section]) -> Vec<Json> {
    sections.iter().map(values).map(Json::Object).collect()
}

fn values(section: &Section) -> Map<String, Json> {
    let mut all = Map::new();
    for key in KEYS.iter().filter(|key| key.section == section.table) {
        if let Some(value) = section.effective(key.name) {
            insert(&mut all, key.name, shown(key, value));
        }
    }
    all
}

/// Inserts a value below a name such as `send`, or in a table, such as `history.size`.
fn insert(table: &mut Map<String, Json>, name: &str, value: Json) {
    let Some((first, rest)) = name.split_once('.') else {
        table.insert(name.to_owned(), value);
        return;
    };
    let inner = table.entry(first).or_insert_with(|| Map::new().into());
    if let Json::Object(inner) = inner {
        insert(inner, rest, value);
    }
}

fn shown(key: &Key, value: ConfigValue) -> Json {
    let json = match value {
        ConfigValue::Bool(flag) => flag.into(),
        ConfigValue::Count(number) => number.into(),
        ConfigValue::Time(time) => units::format_duration(time).into(),
        ConfigValue::Bytes(bytes) => units::format_bytes(bytes).into(),
        ConfigValue::Ratio(ratio) => ratio.into(),
        ConfigValue::Address(address) => address.to_string().into(),
        ConfigValue::Text(text) => text.into(),
        ConfigValue::Texts(texts) => texts.into(),
        // Validated when it was read.
        ConfigValue::Json(text) => masked_table(serde_json::from_str(&text).unwrap_or_default()),
    };
    if key.secret { masked(&json) } else { json }
}

/// Shows the number of entries, but not their contents.
fn masked(json: &Json) -> Json {
    match json {
        Json::String(text) if text.is_empty() => "".into(),
        Json::Array(elements) => elements.iter().map(|_| MASK).collect(),
        _ => MASK.into(),
    }
}

fn masked_table(json: Json) -> Json {
    match json {
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let value = if tells_of_a_secret(&name) {
                    masked_leaves(value)
                } else {
                    masked_table(value)
                };
                (name, value)
            });
            fields.collect()
        }
        Json::Array(elements) => elements.into_iter().map(masked_table).collect(),
        Json::String(text) => without_user(&text).into(),
        other => other,
    }
}

fn masked_leaves(json: Json) -> Json {
    match json {
        Json::Object(fields) => {
            let fields = fields.into_iter();
            fields
                .map(|(name, value)| (name, masked_leaves(value)))
                .collect()
        }
        Json::Array(elements) => elements.into_iter().map(masked_leaves).collect(),
        Json::String(_) | Json::Number(_) => MASK.into(),
        other => other,
    }
}

fn tells_of_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `scheme://user:password@host` without the part before the `@`.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{MASK}{}", &rest[user.len()..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::{Config, Environment};

    fn shown(text: &str) -> Shown {
        let config = Config::parse(text, Path::new("platform.toml"), &Environment::new());
        config.unwrap_or_else(|errors| panic!("{errors}")).shown
    }

    #[test]
    fn every_key_is_shown_as_the_file_writes_it() {
        let text = "[limits]\nframe_bytes_max = \"1MiB\"\n[server]\nping_interval = \"5s\"\n\
            [[rooms]]\nmatch = \"chat:*\"\nhistory = { size = 100, time = \"300s\" }\n\
            [users]\nhistory = { size = 50, time = \"120s\" }\n\
            [[webhooks]]\nurl = \"https://a/b\"\nsecret = \"0123456789abcdef0123456789abcdef\"\nevents = [\"connected\"]\n\
            [[plugins]]\nname = \"chat\"\npath = \"chat.wasm\"\nevents = [\"chat.*\"]\n";
        let json = shown(text).json();
        for key in KEYS {
            let section = match key.section {
                "plugins" => &json["plugins"][0],
                "rooms" => &json["rooms"][0],
                "webhooks" => &json["webhooks"][0],
                section => &json[section],
            };
            let within = format!("/{}", key.name.replace('.', "/"));
            assert!(section.pointer(&within).is_some(), "{}", key.full_name());
        }
        assert_eq!(json["limits"]["frame_bytes_max"], "1MiB");
        assert_eq!(json["limits"]["messages_burst"], 400);
        assert_eq!(json["server"]["ping_interval"], "5s");
        assert_eq!(json["plugins"][0]["events"], json!(["chat.*"]));
        assert_eq!(json["plugins"][0]["config"], json!({}));
        let history = json!({"size": 100, "time": "5m"});
        assert_eq!(json["rooms"][0]["history"], history);
    }

    #[test]
    fn a_rule_without_a_history_is_shown_without_one() {
        let json = shown("[[rooms]]\nmatch = \"chat:*\"\nsend = \"backend\"\n").json();
        let rule = json!({"match": "chat:*", "join": "open", "send": "backend", "presence": false, "members_max": 0});
        assert_eq!(json["rooms"], json!([rule]));
        assert_eq!(shown("").json()["rooms"], json!([]));
    }

    #[test]
    fn no_secret_is_shown() {
        let text = "[admin]\nkey = \"hush-hush-hush-hush\"\n[api]\nkeys = [\"hush-hush-hush-hush\", \"hush-hush-hush-hush2\"]\n\
            [auth]\nmode = \"jwt\"\njwt_secret = \"hush-hush-hush-hush-hush-hush-hush\"\n\
            [redis]\nurl = \"redis://hush:hush@a\"\n\
            [[webhooks]]\nurl = \"https://a/b\"\nsecret = \"hush-hush-hush-hush-hush-hush-hush\"\n\
            secret_previous = \"hush-hush-hush-hush-hush-hush-hush2\"\nevents = [\"connected\"]\n\
            [[plugins]]\nname = \"a\"\npath = \"a.wasm\"\nevents = [\"*\"]\n\
            [plugins.config]\napi_key = \"hush\"\nTOKENS = [\"hush\"]\nwords = [\"loud\"]\nmax = 3\n\
            url = \"https://hush:hush@b/c@d\"\nplain = \"https://b/c@d\"\n\
            [plugins.config.auth]\nuser = \"hush\"\nnumber = 7\non = true\n";
        let json = shown(text).json();
        assert!(!json.to_string().contains("hush"), "{json}");
        assert_eq!(json["admin"]["key"], MASK);
        assert_eq!(json["api"]["keys"], json!([MASK, MASK]));
        let expected = json!({
            "api_key": MASK, "TOKENS": [MASK], "words": ["loud"], "max": 3,
            "url": "https://****@b/c@d", "plain": "https://b/c@d",
            "auth": {"user": MASK, "number": MASK, "on": true},
        });
        assert_eq!(json["plugins"][0]["config"], expected);
        assert_eq!(shown("").json()["admin"]["key"], "", "none is set");
    }

    #[test]
    fn settings_that_need_a_restart_are_shown_with_their_start_values() {
        let started = shown("[server]\nlisten = \"127.0.0.1:1\"\ndrain_timeout = \"1s\"");
        let new = shown("[server]\nlisten = \"127.0.0.1:2\"\ndrain_timeout = \"2s\"");
        let json = Shown::in_force(&started, &new).json();
        assert_eq!(json["server"]["listen"], "127.0.0.1:1");
        assert_eq!(json["server"]["drain_timeout"], "2s");
    }
}
