//! One key of the configuration: its name, its kind, and how files and variables write it.

use std::time::Duration;

use super::checks::Check;

/// The prefix of all our variables.
pub const PREFIX: &str = "SIGNALBOX_";

/// The suffix of variables that name a file with a secret.
pub const FILE_SUFFIX: &str = "_FILE";

/// Whether a section is a list of tables, such as `[[plugins]]`.
pub(super) fn is_list(section: &str) -> bool {
    ["rooms", "webhooks", "plugins"].contains(&section)
}

/// One key that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The section without brackets; `plugins` for a key of each `[[plugins]]`.
    pub section: &'static str,
    /// The name in the section; `history.size` is `size` in its table `history`.
    pub name: &'static str,
    /// The kind of its value.
    pub(super) kind: ValueKind,
    /// The default, written as in an environment variable; empty if there is none.
    pub default: &'static str,
    /// A valid value other than the default, written as in an environment variable.
    pub example: &'static str,
    /// When a change of it takes effect.
    pub change: ChangeEffect,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// Its meaning, in one sentence without a period.
    pub meaning: &'static str,
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeEffect {
    /// As soon as the file is read again.
    Live,
    /// With the next start of the server.
    Restart,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum ValueKind {
    /// `true` or `false`.
    Bool,
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// A duration from the first to the second.
    Time(Duration, Duration),
    /// A size in bytes from the first to the second.
    Bytes(u64, u64),
    /// A ratio from 0 to 1.
    Ratio,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IP address with a port.
    Address,
    /// A text that passes the check.
    Text(Check),
    /// A list of texts that each pass the check.
    Texts(Check),
    /// A table that becomes JSON.
    Table,
}

impl Key {
    /// The key with its section, `limits.frame_bytes_max`; `plugins.NAME.memory_max` for a plugin's, and
    /// `rooms[N].join` for one in another list.
    pub fn full_name(&self) -> String {
        match self.section {
            "plugins" => format!("plugins.NAME.{}", self.name),
            list @ ("rooms" | "webhooks") => format!("{list}[N].{}", self.name),
            section => format!("{section}.{}", self.name),
        }
    }

    /// The heading of its section in a file: `[limits]`, `[[plugins]]`.
    pub(super) fn heading(&self) -> String {
        if is_list(self.section) {
            format!("[[{}]]", self.section)
        } else {
            format!("[{}]", self.section)
        }
    }

    /// Whether the key has a value if nothing sets it. The empty text and the empty list are values.
    pub(super) fn has_default(&self) -> bool {
        !self.default.is_empty() || matches!(self.kind, ValueKind::Text(_) | ValueKind::Texts(_))
    }

    /// Whether an environment variable can set the key. A plugin's name is a part of its variables; rules for rooms and
    /// webhooks have no name.
    pub fn has_variable(&self) -> bool {
        !["rooms", "webhooks"].contains(&self.section)
            && (self.section, self.name) != ("plugins", "name")
    }

    /// For a secret that has a variable: the environment variable that names a file with its value.
    pub fn file_variable(&self) -> Option<String> {
        (self.secret && self.has_variable()).then(|| format!("{}{FILE_SUFFIX}", self.variable()))
    }

    /// The environment variable that sets it, if it [has one](Self::has_variable); in the variable of a plugin's key,
    /// `NAME` is a placeholder for the plugin's name.
    pub fn variable(&self) -> String {
        let section = match self.section {
            "plugins" => "PLUGINS__NAME".to_owned(),
            section => section.to_uppercase(),
        };
        let name = self.name.to_uppercase().replace('.', "__");
        format!("{PREFIX}{section}__{name}")
    }

    /// The same key, as a secret.
    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}
