//! The differences between two configurations, and which of them need a restart, as listed in the table of keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Config,
    keys::{ChangeEffect, KEYS, Key},
    settings::{Section, Settings},
    url_checks,
    values::ConfigValue,
};

/// Every key with its effective value, set or default. Keys without a value are left out.
#[derive(Clone, Default, PartialEq)]
pub struct Resolved(BTreeMap<(String, Part), ConfigValue>);

/// The part of a setting that a value belongs to. The address of Redis has two parts, which change in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Live,
    Restart,
}

/// The full names of the keys that differ between two configurations, in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigDifference {
    /// Keys that can be applied while the server runs.
    pub live: Vec<String>,
    /// Keys that take effect at the next start.
    pub restart: Vec<String>,
}

// Values may be secrets, and logs use `Debug`.
impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resolved({} values)", self.0.len())
    }
}

impl Resolved {
    pub(super) fn of(settings: &Settings) -> Self {
        let mut resolved = Self::default();
        let lists = settings
            .plugins
            .iter()
            .chain(&settings.rooms)
            .chain(&settings.webhooks);
        for section in settings.sections.values().chain(lists) {
            for key in KEYS.iter().filter(|key| key.section == section.table) {
                resolved.add(section, key);
            }
        }
        // The order of the chain is not a key.
        let order = settings.plugins.iter().map(|plugin| plugin.path.clone());
        let order = ConfigValue::Texts(order.collect());
        resolved.0.insert(("plugins".to_owned(), Part::Live), order);
        resolved
    }

    fn add(&mut self, section: &Section, key: &Key) {
        let name = format!("{}.{}", section.path, key.name);
        let Some(value) = section.effective(key.name) else {
            return;
        };
        let part = match key.change {
            ChangeEffect::Live => Part::Live,
            ChangeEffect::Restart => Part::Restart,
        };
        if (key.section, key.name) == ("redis", "url")
            && let ConfigValue::Text(urls) = &value
        {
            let bare = url_checks::split_redis_urls(urls).map(url_checks::without_login);
            let bare = ConfigValue::Texts(bare.collect());
            self.0.insert((name.clone(), Part::Restart), bare);
            self.0.insert((name, Part::Live), value);
        } else {
            self.0.insert((name, part), value);
        }
    }

    fn names_that_differ(&self, other: &Self, part: Part) -> Vec<String> {
        let all: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        all.into_iter()
            .filter(|name| name.1 == part && self.0.get(*name) != other.0.get(*name))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// The differences between `old` and `new`.
pub fn difference(old: &Config, new: &Config) -> ConfigDifference {
    let (old, new) = (&old.resolved, &new.resolved);
    let restart = old.names_that_differ(new, Part::Restart);
    let mut live = old.names_that_differ(new, Part::Live);
    // The address of the server changed, so a change of the login does not matter.
    live.retain(|name| !restart.contains(name));
    ConfigDifference { live, restart }
}

/// The keys that differ between two configurations and take effect only at the next start.
pub fn cannot_change_live(old: &Config, new: &Config) -> Vec<String> {
    difference(old, new).restart
}
