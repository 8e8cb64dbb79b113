//! The nodes' answers to a proposal, and the verdict on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{NodeAnswer, NodeOutcome};

/// A node's answer to a proposal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Vote {
    #[serde(flatten)]
    pub(super) answer: NodeAnswer,
    /// The number of the last decision about this plugin that the node follows; 0 for none.
    pub(super) number: u64,
}

impl From<NodeAnswer> for Vote {
    fn from(answer: NodeAnswer) -> Self {
        Self { answer, number: 0 }
    }
}

/// The verdict on the answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VoteResult {
    Wait,
    Go,
    Stop(String),
}

/// All nodes that were asked, with their answers.
pub(super) fn roll(
    asked: &BTreeSet<String>,
    living: &[String],
    votes: &BTreeMap<String, Vote>,
) -> BTreeMap<String, NodeAnswer> {
    let sync_status = |node: &String| {
        if !living.contains(node) {
            return NodeAnswer::of(NodeOutcome::Gone);
        }
        let answer = votes.get(node).map(|vote| vote.answer.clone());
        answer.unwrap_or_else(|| NodeAnswer::of(NodeOutcome::NoAnswer))
    };
    asked
        .iter()
        .map(|node| (node.clone(), sync_status(node)))
        .collect()
}

pub(super) fn judge(
    nodes: &BTreeMap<String, NodeAnswer>,
    quorum: Option<usize>,
    late: bool,
) -> VoteResult {
    let count = |outcomes: &[NodeOutcome]| {
        let is = |answer: &&NodeAnswer| outcomes.contains(&answer.outcome);
        nodes.values().filter(is).count()
    };
    let yes = count(&[NodeOutcome::Admitted, NodeOutcome::Live]);
    let no = count(&[NodeOutcome::Refused, NodeOutcome::Failed]);
    let open = count(&[NodeOutcome::NoAnswer]);
    match quorum {
        None if no > 0 => VoteResult::Stop(format!("{no} of {} nodes refused", yes + no + open)),
        None if open == 0 && yes > 0 => VoteResult::Go,
        None if late => VoteResult::Stop(format!("{open} nodes did not answer in time")),
        Some(quorum) if yes + open < quorum => VoteResult::Stop(format!(
            "{yes} nodes would go live, fewer than the quorum of {quorum}"
        )),
        Some(quorum) if open == 0 || (late && yes >= quorum) => VoteResult::Go,
        Some(quorum) if late => VoteResult::Stop(format!(
            "{yes} nodes said in time that they would go live, fewer than the quorum of {quorum}"
        )),
        _ => VoteResult::Wait,
    }
}

impl NodeAnswer {
    pub(super) fn admitted(took: Duration) -> Self {
        Self {
            outcome: NodeOutcome::Admitted,
            ..Self::live(took)
        }
    }

    pub(super) fn failed(reason: &str) -> Self {
        Self {
            message: Some(reason.to_owned()),
            ..Self::of(NodeOutcome::Failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(outcomes: &[NodeOutcome]) -> BTreeMap<String, NodeAnswer> {
        let named = |(index, outcome): (usize, &NodeOutcome)| {
            (format!("n{index}"), NodeAnswer::of(*outcome))
        };
        outcomes.iter().enumerate().map(named).collect()
    }

    #[test]
    fn without_a_quorum_all_that_are_alive_must_admit_it() {
        use NodeOutcome::{Admitted, Failed, Gone, NoAnswer, Refused};
        let judge = |outcomes: &[NodeOutcome], late| judge(&nodes(outcomes), None, late);
        assert_eq!(judge(&[Admitted, Admitted, Gone], false), VoteResult::Go);
        assert_eq!(judge(&[Admitted, NoAnswer], false), VoteResult::Wait);
        assert!(matches!(
            judge(&[Admitted, NoAnswer], true),
            VoteResult::Stop(_)
        ));
        assert!(matches!(
            judge(&[NoAnswer, Refused], false),
            VoteResult::Stop(_)
        ));
        assert!(matches!(
            judge(&[Admitted, Failed], false),
            VoteResult::Stop(_)
        ));
        assert!(matches!(
            judge(&[Gone, NoAnswer], true),
            VoteResult::Stop(_)
        ));
    }

    #[test]
    fn a_quorum_is_enough_once_all_have_answered_or_the_time_is_over() {
        use NodeOutcome::{Admitted, NoAnswer, Refused};
        let judge = |outcomes: &[NodeOutcome], late| judge(&nodes(outcomes), Some(2), late);
        assert_eq!(judge(&[Admitted, Admitted, Refused], false), VoteResult::Go);
        assert_eq!(
            judge(&[Admitted, Admitted, NoAnswer], false),
            VoteResult::Wait
        );
        assert_eq!(judge(&[Admitted, Admitted, NoAnswer], true), VoteResult::Go);
        assert!(matches!(
            judge(&[Admitted, Refused, Refused], false),
            VoteResult::Stop(_)
        ));
        assert!(matches!(
            judge(&[Admitted, NoAnswer, NoAnswer], true),
            VoteResult::Stop(_)
        ));
    }
}
