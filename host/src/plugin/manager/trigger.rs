//! The triggers of swaps.

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
