//! What sets swaps off.

use serde::{Deserialize, Serialize};

/// What set a swap off.
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
    /// An operator had the file read again.
    Reload,
    /// An operator uploaded a component.
    Push,
    /// An operator went back to an earlier version.
    Rollback,
    /// The cluster decided for a version.
    Cluster,
    /// A version failed on probation, and the one before it came back.
    Probation,
}

impl Trigger {
    /// As it stands in logs and reports.
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
