//! The results of manual operations.

use std::{sync::Arc, time::Duration};

use signalbox_plugin_runtime::{LoadError, PluginVersion, Sha256};

/// The result of an operation that did not fail.
#[derive(Debug)]
pub enum Change {
    /// Another version is live.
    Live {
        /// That version.
        version: Arc<PluginVersion>,
        /// The first twelve digits of the sha256 of the version that was live before.
        replaced: Option<String>,
        /// Time from the request to the swap.
        took: Duration,
    },
    /// The live version stays, and another version is on trial alongside it.
    OnTrial {
        /// That version.
        version: Arc<PluginVersion>,
        /// `canary` or `shadow`.
        mode: &'static str,
        /// The share of users that it serves, in percent; `None` for a shadow.
        percent: Option<u32>,
        /// Time from the request to the start of the trial.
        took: Duration,
    },
    /// The live version stays, because there was nothing to do.
    Unchanged(Unchanged),
}

/// Why there was nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// This version is already live.
    Live,
    /// The file is skipped because an operator overrode it with a push or a rollback.
    Held,
    /// The file was refused and has not changed since.
    Refused,
    /// This version was rolled back automatically, and no operator insists on it.
    RolledBack,
    /// This version is already on trial alongside the live one.
    OnTrial,
}

/// Why an operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such plugin is configured.
    #[error("no plugin is called {0:?} in the configuration of this node")]
    UnknownPlugin(String),
    /// There is no earlier version to roll back to.
    #[error("there is no earlier version to go back to")]
    NoEarlierVersion,
    /// The requested version is not one of those that were live before.
    #[error(
        "{0:?} is none of the versions that were live before; give at least 12 digits of the sha256"
    )]
    NoSuchVersion(String),
    /// The component was rolled back automatically, and no operator insists on it.
    #[error(
        "version {version} was rolled back on probation ({reason}); change it, or push it with force"
    )]
    RolledBack {
        /// The first twelve digits of its sha256.
        version: String,
        /// Why it was taken back.
        reason: String,
    },
    /// The component was refused.
    #[error("{error}")]
    Refused {
        /// The hash of the component; `None` if nothing could be read.
        hash: Option<Sha256>,
        /// Why.
        error: LoadError,
        /// The first twelve digits of the sha256 of the version that stays live.
        live: Option<String>,
    },
}
