//! What comes of what operators do.

use std::{sync::Arc, time::Duration};

use crate::plugin::{ComponentHash, LoadError, PluginVersion};

/// What came of an operation that nothing spoke against.
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
    /// What is live stays, and another version is tried beside it.
    OnTrial {
        /// That version.
        version: Arc<PluginVersion>,
        /// `canary` or `shadow`.
        mode: &'static str,
        /// The share of users that go through it.
        percent: Option<u32>,
        /// Time from the request to its beginning.
        took: Duration,
    },
    /// What is live stays, because there was nothing to do.
    Unchanged(Unchanged),
}

/// Why there was nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// This version is live already.
    Live,
    /// The file is the one that an operator passed over, by a push or a rollback.
    Held,
    /// The file was refused, and has not changed since.
    Refused,
    /// This version was taken back by itself, and nobody insists on it.
    RolledBack,
    /// This version is tried beside the live one already.
    OnTrial,
}

/// Why an operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such plugin is configured.
    #[error("no plugin is called {0:?} in the configuration of this node")]
    UnknownPlugin(String),
    /// There is nothing to go back to.
    #[error("there is no earlier version to go back to")]
    NoEarlierVersion,
    /// The version to go back to is none that was live.
    #[error(
        "{0:?} is none of the versions that were live before; it takes at least 12 digits of the sha256"
    )]
    NoSuchVersion(String),
    /// The component was live and taken back by itself, and nobody insists on it.
    #[error(
        "version {version} was taken back on probation ({reason}); change it, or push it with force"
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
        /// Which one; none where nothing could be read.
        hash: Option<ComponentHash>,
        /// Why.
        error: LoadError,
        /// The first twelve digits of the sha256 of the version that stays live.
        live: Option<String>,
    },
}
