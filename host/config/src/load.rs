//! Makes a [`Config`] from a file or a text.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError, ConfigErrors, Environment, SettingPlace, assemble, document, environment,
    settings::Settings, webhooks,
};

/// The file in the current folder that is read if none is named.
pub const DEFAULT_FILE: &str = "platform.toml";

impl Config {
    /// Reads the configuration: the file, overridden by the environment (see [`environment::gather`]). Without a
    /// `path`, [`DEFAULT_FILE`] is read if it exists; otherwise the defaults apply, without a plugin.
    ///
    /// # Errors
    ///
    /// Returns all errors at once, including a `path` that cannot be read.
    pub fn load(path: Option<&Path>, env: &Environment) -> Result<Self, ConfigErrors> {
        let origin = path.unwrap_or(Path::new(DEFAULT_FILE));
        match fs::read_to_string(origin) {
            Ok(text) => Self::parse(&text, origin, env),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Self::parse("", origin, env)
            }
            Err(error) => {
                let advice = match error.kind() {
                    io::ErrorKind::NotFound => "name another file with --config, or create it",
                    io::ErrorKind::InvalidData => "save it as UTF-8",
                    _ => "check that it is a file that this user may read",
                };
                let error = ConfigError {
                    place: SettingPlace::File,
                    key: String::new(),
                    message: format!("cannot be read: {error}; {advice}"),
                };
                Err(ConfigErrors::new(origin, vec![error]))
            }
        }
    }

    /// Reads a text as [`Config::load`] reads a file. `origin` is the name in errors, and all relative paths are
    /// relative to its folder, including those in environment variables.
    ///
    /// # Errors
    ///
    /// Returns all errors at once.
    pub fn parse(text: &str, origin: &Path, env: &Environment) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let document::Document {
            mut settings,
            is_toml,
        } = document::read(text, &mut errors);
        let folder = folder_of(origin);
        environment::overlay(&mut settings, env, &folder, &mut errors);
        webhooks::read_secret_files(&mut settings, &folder, &mut errors);
        if is_toml {
            let config = assemble::assemble(&settings, &folder, &mut errors);
            if errors.is_empty() {
                return Ok(config);
            }
        }
        Err(ConfigErrors::new(origin, errors))
    }
}

/// The defaults: no plugin, no key, a loopback address, the host's name.
impl Default for Config {
    fn default() -> Self {
        let settings = Settings::default();
        assemble::assemble(
            &settings,
            &folder_of(Path::new(DEFAULT_FILE)),
            &mut Vec::new(),
        )
    }
}

/// The folder of a file; absolute if the current folder is known.
fn folder_of(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().map(Path::to_owned).unwrap_or_default()
}
