//! The texts that nodes write about plugins: proposals, decisions, and the components that both are about.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use signalbox_plugin_runtime::Sha256;

/// A component that is, or will be, in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredComponent {
    pub(super) sha256: Sha256,
    pub(super) bytes: usize,
}

/// A component that a node wants live on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) id: String,
    /// The lowest number that the decision it may become can have: higher than all that are known to the proposing
    /// node.
    pub(super) number: u64,
    pub(super) component: StoredComponent,
    /// The node that made the proposal.
    pub(super) by: String,
}

/// The decision that the cluster follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decision {
    /// From 1; numbers only grow.
    pub(super) number: u64,
    /// The ID of the proposal that it comes from.
    pub(super) id: String,
    /// `None`: every node runs the version in its file.
    pub(super) component: Option<StoredComponent>,
    /// Whether the version has to prove itself on each node.
    pub(super) probation: bool,
    /// The node that decided.
    pub(super) by: String,
    /// The caller who asked that node for it.
    pub(super) who: String,
    /// RFC 3339, with milliseconds.
    pub(super) at: String,
}

impl Decision {
    /// A decision made now, with probation.
    pub(super) fn new(
        number: u64,
        id: &str,
        component: Option<StoredComponent>,
        by: &str,
        who: &str,
    ) -> Self {
        Self {
            number,
            id: id.to_owned(),
            component,
            probation: true,
            by: by.to_owned(),
            who: who.to_owned(),
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        }
    }

    /// Whether this is the later of the two decisions. Redis may have lost a decision, and then its number is used
    /// again.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        let rank = |decision: &Self| (decision.number, decision.at.clone(), decision.id.clone());
        rank(self) > rank(other)
    }

    /// The version as logs name it.
    pub(super) fn version(&self) -> String {
        match &self.component {
            Some(component) => component.sha256.label(),
            None => "what its file says".to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A sample decision.
    pub(in super::super) fn decision(number: u64) -> Decision {
        Decision {
            number,
            id: format!("n-{number}"),
            component: Some(StoredComponent {
                sha256: Sha256::from([0xab; 32]),
                bytes: 1,
            }),
            probation: true,
            by: "n".to_owned(),
            who: "key e666b86a".to_owned(),
            at: "2026-01-01T00:00:00.000Z".to_owned(),
        }
    }

    #[test]
    fn of_two_decisions_with_one_number_the_same_is_the_later_one_for_all_nodes() {
        let one = decision(7);
        let other = Decision {
            id: "m-1".to_owned(),
            at: "2026-01-01T00:00:01.000Z".to_owned(),
            ..one.clone()
        };
        assert!(other.is_later_than(&one) && !one.is_later_than(&other));
        assert!(!one.is_later_than(&one));
        assert!(decision(8).is_later_than(&other));
    }

    #[test]
    fn a_version_is_named_by_the_first_digits_of_its_hash() {
        assert_eq!(decision(1).version(), "abababababab");
    }
}
