//! The configuration as a whole: files in `testdata` with their expected results, and the table of keys compared with
//! the reader, the environment, `platform.toml`, `.env.example` and the reference manual.

mod arbitrary;
mod defaults;
mod files;
mod reference;
mod rooms;
mod table;
mod variables;
mod webhooks;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;
use signalbox_protocol::event_type::Patterns;

use super::{
    AllowedOrigins, AuthConfig, BrokerConfig, CloudWatchConfig, Config, ConfigErrors, Environment,
    EventsConfig, HistoryRule, InstanceMode, JoinRule, JwtKeySource, Limits, OnFailure,
    PluginConfig, PluginLimits, PluginVersionsConfig, PresenceConfig, ProbationConfig, RedisCompat,
    RedisConfig, RedisMode, RolloutConfig, RoomRule, RoomsConfig, SendRule, Shown,
    StorageResolution, TracingConfig, UsersConfig, WebhookConfig, WebhookEvent,
    keys::{self, ChangeEffect, KEYS, Key, ValueKind},
    live::{ConfigDifference, Resolved, difference},
    values,
};

/// A plugin, for keys that need one.
const ONE_PLUGIN: &str =
    "[[plugins]]\nname = \"my-chat\"\npath = \"chat.wasm\"\nevents = [\"a\"]\n";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
}

fn at_the_top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, &[])
}

fn parse_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = Config::parse(
        text,
        Path::new("/srv/platform.toml"),
        &environment.collect(),
    )?;
    // These repeat the same values, including keys that have no effect here, which would disturb the comparison.
    Ok(Config {
        shown: Shown::default(),
        resolved: Resolved::default(),
        ..config
    })
}

/// The only error of a text and an environment.
fn only_error(text: &str, environment: &[(&str, &str)]) -> String {
    let errors = parse_with(text, environment)
        .expect_err("this is wrong")
        .to_string();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

/// Compares a file with its expected contents, or writes it if `UPDATE_SNAPSHOTS` is set.
fn assert_snapshot(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(path, actual).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        expected,
        actual,
        "{}: run again with UPDATE_SNAPSHOTS=1 if this is right",
        path.display()
    );
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(here(folder)).expect("the folder of test data");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}
