//! The triggers of swaps, and the origin of versions.

use serde::{Deserialize, Serialize};

/// The trigger of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The start of the server.
    Start,
    /// A changed plugin file.
    File,
    /// A changed configuration.
    Config,
    /// SIGHUP.
    Signal,
    /// An operator requested that the file be read again.
    Reload,
    /// An operator uploaded a component.
    Push,
    /// An operator rolled back to an earlier version.
    Rollback,
    /// The cluster decided on a version.
    Cluster,
    /// A version failed on probation, and the previous one came back.
    Probation,
}

impl Trigger {
    /// Its name in logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Config => "config",
            Self::Signal => "signal",
            Self::Reload => "reload",
            Self::Push => "push",
            Self::Rollback => "rollback",
            Self::Cluster => "cluster",
            Self::Probation => "probation",
        }
    }
}

impl Trigger {
    /// Whether a version with this trigger is tried alongside the live one first, if a rollout is configured.
    pub(super) fn tries_first(self) -> bool {
        // A rollback must not wait, the nodes of a cluster go live together, and at startup there is nothing to compare
        // with.
        !matches!(
            self,
            Self::Start | Self::Rollback | Self::Probation | Self::Cluster
        )
    }
}

/// The origin of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configured file.
    File,
    /// An operator. The file is skipped until it changes.
    Operator,
}
