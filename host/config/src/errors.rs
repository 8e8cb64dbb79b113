//! The errors of a configuration: all at once, each with its place and key.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// The place of a setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingPlace {
    /// The file as a whole.
    File,
    /// A place in the file; both count from 1, the column in characters.
    At {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A line of a file with variables, counted from 1; `None` means the file as a whole.
    Beside(PathBuf, Option<usize>),
    /// An environment variable.
    Variable(String),
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// Its place.
    pub place: SettingPlace,
    /// The full key, such as `limits.frame_bytes_max` or `plugins.chat.events[1]`; empty if there is none.
    pub key: String,
    /// The value found, the expected one, and advice. Never contains a secret.
    pub message: String,
}

/// An error in a value in a file.
#[derive(Debug)]
pub(super) struct ValueFault {
    /// Its place, in bytes of the file.
    pub(super) span: Range<usize>,
    /// The part of the value, as it follows the key: `[1]` for an element, `.name` for an entry of a table, or nothing.
    pub(super) within: String,
    pub(super) message: String,
}

/// All errors of a configuration, in the order of the file. `Display` writes a line for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    origin: PathBuf,
    errors: Vec<ConfigError>,
}

impl ConfigError {
    /// This error, located in `file` instead of the file that is being read.
    pub(super) fn within(self, file: &Path) -> Self {
        let line = match self.place {
            SettingPlace::At { line, .. } => Some(line),
            _ => None,
        };
        Self {
            place: SettingPlace::Beside(file.to_owned(), line),
            ..self
        }
    }
}

impl ConfigErrors {
    /// Sorts the errors of one file, and of the environment, by place.
    pub(super) fn new(origin: &Path, mut errors: Vec<ConfigError>) -> Self {
        errors.sort();
        errors.dedup();
        Self {
            origin: origin.to_owned(),
            errors,
        }
    }

    /// The file that was read.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The errors, in the order of the file, those of environment variables last. At least one.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match &error.place {
                SettingPlace::File => write!(f, "{}", self.origin.display())?,
                SettingPlace::At { line, column } => {
                    write!(f, "{}:{line}:{column}", self.origin.display())?;
                }
                SettingPlace::Beside(file, None) => write!(f, "{}", file.display())?,
                SettingPlace::Beside(file, Some(line)) => write!(f, "{}:{line}:1", file.display())?,
                SettingPlace::Variable(name) => f.write_str(name)?,
            }
            if !error.key.is_empty() {
                write!(f, ": {}", error.key)?;
            }
            write!(f, ": {}", error.message)?;
        }
        Ok(())
    }
}
