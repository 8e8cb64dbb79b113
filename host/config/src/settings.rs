//! Settings after reading, each with its place, before they are assembled.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use super::{
    errors::{ConfigError, SettingPlace},
    keys::{self, Key},
    values::{self, ConfigValue},
};

/// Everything that was set by the file and the environment.
pub(super) struct Settings {
    /// The plain sections by name.
    pub(super) sections: BTreeMap<&'static str, Section>,
    /// `[[plugins]]`, in the order of the file.
    pub(super) plugins: Vec<Section>,
    /// `[[rooms]]`, in the order of the file.
    pub(super) rooms: Vec<Section>,
    /// `[[webhooks]]`, in the order of the file.
    pub(super) webhooks: Vec<Section>,
    /// The files from which secrets were read, including those that could not be read.
    pub(super) secret_files: BTreeSet<PathBuf>,
    /// The variable that set the port of an address, if nothing else set the address.
    pub(super) port_alone: Option<String>,
}

/// The settings of one section, of one plugin, or of one rule for rooms.
pub(super) struct Section {
    /// The section in the table of keys.
    pub(super) table: &'static str,
    /// Its name in errors: `limits`, `plugins.chat`, `rooms[0]`.
    pub(super) path: String,
    /// The place where it starts.
    pub(super) place: SettingPlace,
    /// The keys that were set.
    pub(super) values: BTreeMap<&'static str, Setting>,
}

/// A key that was set.
pub(super) struct Setting {
    /// `None` if the value was invalid; the error has been recorded.
    pub(super) value: Option<ConfigValue>,
    /// The place where it was written.
    pub(super) place: SettingPlace,
}

impl Default for Settings {
    fn default() -> Self {
        let plain = keys::SECTIONS.iter().filter(|name| !keys::is_list(name));
        let empty = |name: &&'static str| {
            (
                *name,
                Section::new(name, (*name).to_owned(), SettingPlace::File),
            )
        };
        Self {
            sections: plain.map(empty).collect(),
            plugins: Vec::new(),
            rooms: Vec::new(),
            webhooks: Vec::new(),
            secret_files: BTreeSet::new(),
            port_alone: None,
        }
    }
}

impl Section {
    pub(super) fn new(table: &'static str, path: String, place: SettingPlace) -> Self {
        Self {
            table,
            path,
            place,
            values: BTreeMap::new(),
        }
    }

    /// Whether the key was set, to a valid value or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Adds an error if the key `name` is not set. `example`: a value as the file writes it.
    pub(super) fn require(&self, name: &str, example: &str, errors: &mut Vec<ConfigError>) {
        if !self.has(name) {
            let message = format!("is missing; write for example {name} = {example}");
            errors.push(self.error(&[name], message));
        }
    }

    /// Whether this variable was the last to set the key.
    pub(super) fn is_set_by(&self, name: &str, variable: &str) -> bool {
        self.values
            .get(name)
            .is_some_and(|setting| setting.place == SettingPlace::Variable(variable.to_owned()))
    }

    /// Whether none of the keys has an invalid value, so that they can be compared.
    pub(super) fn are_right(&self, names: &[&str]) -> bool {
        names.iter().all(|name| {
            self.values
                .get(*name)
                .is_none_or(|setting| setting.value.is_some())
        })
    }

    /// Whether all of the keys have a value, set or by default.
    pub(super) fn have_values(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.effective(name).is_some())
    }

    /// An error about the first of these keys that was set, at its place.
    pub(super) fn error(&self, names: &[&str], message: impl Into<String>) -> ConfigError {
        let set = names
            .iter()
            .find_map(|name| Some((*name, self.values.get(*name)?.place.clone())));
        let (name, place) = set.unwrap_or_else(|| {
            (
                names.first().copied().unwrap_or_default(),
                self.place.clone(),
            )
        });
        ConfigError {
            place,
            key: format!("{}.{name}", self.path),
            message: message.into(),
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            ConfigValue::Bool(flag) => flag,
            _ => mismatch(name),
        }
    }

    pub(super) fn count(&self, name: &str) -> u32 {
        match self.value(name) {
            // The table limits every count to far less.
            ConfigValue::Count(number) => u32::try_from(number).unwrap_or(u32::MAX),
            _ => mismatch(name),
        }
    }

    pub(super) fn bytes(&self, name: &str) -> usize {
        match self.value(name) {
            ConfigValue::Bytes(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            _ => mismatch(name),
        }
    }

    pub(super) fn ratio(&self, name: &str) -> f64 {
        match self.value(name) {
            ConfigValue::Ratio(ratio) => ratio,
            _ => mismatch(name),
        }
    }

    pub(super) fn time(&self, name: &str) -> Duration {
        match self.value(name) {
            ConfigValue::Time(time) => time,
            _ => mismatch(name),
        }
    }

    pub(super) fn address(&self, name: &str) -> SocketAddr {
        match self.value(name) {
            ConfigValue::Address(address) => address,
            _ => mismatch(name),
        }
    }

    pub(super) fn text(&self, name: &str) -> String {
        match self.value(name) {
            ConfigValue::Text(text) => text,
            _ => mismatch(name),
        }
    }

    /// A text, or `None` if it is empty.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            ConfigValue::Texts(texts) => texts,
            _ => mismatch(name),
        }
    }

    pub(super) fn json(&self, name: &str) -> String {
        match self.value(name) {
            ConfigValue::Json(json) => json,
            _ => mismatch(name),
        }
    }

    /// The value that was set, or the default. The key has a default, or [has a value](Self::have_values).
    fn value(&self, name: &str) -> ConfigValue {
        self.effective(name)
            .unwrap_or_else(|| unreachable!("{}.{name} has no value", self.path))
    }

    /// The value that was set, or else the default; `None` if there is neither.
    pub(super) fn effective(&self, name: &str) -> Option<ConfigValue> {
        let set = self.values.get(name);
        if let Some(value) = set.and_then(|setting| setting.value.clone()) {
            return Some(value);
        }
        let key = keys::find(self.table, name).unwrap_or_else(|| {
            unreachable!("{}.{name} is missing from the table of keys", self.table)
        });
        // Required texts have no default that would pass their check.
        key.has_default().then(|| match (key.kind, key.default) {
            (keys::ValueKind::Text(_), text) => ConfigValue::Text(text.to_owned()),
            (_, text) => values::from_text(key, text)
                .unwrap_or_else(|error| unreachable!("the default of {name}: {error}")),
        })
    }
}

/// Reports each of the `sections` whose text `name` an earlier one has too; `owner` is a word for one of them.
pub(super) fn refuse_repeated(
    sections: &[Section],
    name: &str,
    owner: &str,
    errors: &mut Vec<ConfigError>,
) {
    let mut seen: HashMap<String, &SettingPlace> = HashMap::new();
    for section in sections {
        let Some(text) = section.optional(name) else {
            continue;
        };
        if let Some(first) = seen.get(&text) {
            let line = match first {
                SettingPlace::At { line, .. } => format!(" in line {line}"),
                _ => String::new(),
            };
            errors.push(section.error(
                &[name],
                format!(
                    "{text:?} is the {name} of another {owner}{line} already; give each its own"
                ),
            ));
        } else {
            seen.insert(text, &section.place);
        }
    }
}

/// Only a mistake in the table of keys leads here, and the tests read every key.
fn mismatch(name: &str) -> ! {
    unreachable!("the table of keys says another kind for {name} than its reader")
}

/// Sets `key` of a section to the text of an environment variable, or to nothing if the text is not a valid value.
pub(super) fn set_from_variable(
    section: &mut Section,
    key: &Key,
    variable: &str,
    text: &str,
    errors: &mut Vec<ConfigError>,
) {
    let place = SettingPlace::Variable(variable.to_owned());
    let value = values::from_text(key, text).map_err(|message| {
        errors.push(ConfigError {
            place: place.clone(),
            key: format!("{}.{}", section.path, key.name),
            message,
        });
    });
    section.values.insert(
        key.name,
        Setting {
            value: value.ok(),
            place,
        },
    );
}
