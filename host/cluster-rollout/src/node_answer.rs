//! The answer of a node to a swap.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use signalbox_plugin_manager::ChangeError;

/// A node's position on a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeOutcome {
    /// It has tried the version and can go live with it.
    Admitted,
    /// It has gone live.
    Live,
    /// It refused the version.
    Refused,
    /// It could not try the version.
    Failed,
    /// It is alive but has not answered.
    NoAnswer,
    /// It was asked and has gone away.
    Gone,
}

/// The answer of one node, or the state of a node that gave none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node's position.
    pub outcome: NodeOutcome,
    /// The step at which it refused the version, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it refused or failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long it took to try the version or to go live, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
}

impl NodeAnswer {
    pub(super) fn of(outcome: NodeOutcome) -> Self {
        Self {
            outcome,
            step: None,
            message: None,
            took_ms: None,
        }
    }

    pub(super) fn live(took: Duration) -> Self {
        Self {
            took_ms: Some(took.as_secs_f64() * 1e3),
            ..Self::of(NodeOutcome::Live)
        }
    }

    pub(super) fn refused(error: &ChangeError) -> Self {
        let step = match error {
            ChangeError::Refused { error, .. } => Some(error.step().to_owned()),
            _ => None,
        };
        Self {
            step,
            message: Some(error.to_string()),
            ..Self::of(NodeOutcome::Refused)
        }
    }
}
