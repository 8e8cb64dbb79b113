//! Judges an entry of the decision log against the decision that this node follows.

use super::{decision_log::PluginEntry, log_text::LogText, texts::Decision};

/// Why the entry is not trusted, if so. `own` is the decision that this node follows.
pub(super) fn distrust_reason(entry: &PluginEntry, own: Option<&Decision>) -> Option<&'static str> {
    let decided = match &entry.decided {
        LogText::Malformed(reason) => Some(*reason),
        LogText::Foreign(decision) if Some(decision) == own => {
            Some("the decision that this node follows is signed with another admin.key")
        }
        LogText::Foreign(_) => Some("the decision is not signed with the admin.key of this node"),
        LogText::Earlier(decision) if own.is_none_or(|own| decision.is_later_than(own)) => {
            Some("the decision is signed with an admin.key that was replaced")
        }
        LogText::Nothing | LogText::Ours(_) | LogText::Earlier(_) => None,
    };
    decided.or(match &entry.proposed {
        LogText::Malformed(reason) => Some(*reason),
        LogText::Earlier(_) | LogText::Foreign(_) => {
            Some("the proposal is not signed with the admin.key of this node")
        }
        LogText::Nothing | LogText::Ours(_) => None,
    })
}

/// Whether `own`, the decision that this node follows, must be written again.
pub(super) fn is_lost(stands: &LogText<Decision>, own: &Decision) -> bool {
    match stands {
        LogText::Nothing | LogText::Malformed(_) => true,
        LogText::Ours(other) => own.is_later_than(other),
        // After a rotation of the key it is sealed again, once by each node that knows both keys.
        LogText::Earlier(other) => own == other || own.is_later_than(other),
        // Nodes that have different keys for a while must not overwrite each other in turns, so a later decision, or
        // the same one, stays.
        LogText::Foreign(other) => own.is_later_than(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::texts::tests::decision, *};

    #[test]
    fn a_lost_decision_is_written_again_and_never_replaces_a_later_one() {
        let own = decision(7);
        let is_lost = |stands: LogText<Decision>| is_lost(&stands, &own);
        assert!(is_lost(LogText::Nothing));
        assert!(is_lost(LogText::Malformed("garbage")));
        assert!(
            is_lost(LogText::Ours(decision(6))),
            "an earlier one was put back"
        );
        assert!(is_lost(LogText::Foreign(decision(6))));
        assert!(!is_lost(LogText::Ours(decision(7))));
        assert!(!is_lost(LogText::Ours(decision(8))));
    }

    #[test]
    fn while_a_key_is_rotated_nodes_keep_the_decision_and_do_not_write_in_turns() {
        let own = decision(7);
        // A node that had the old key seals it again; a node that does not have the new one leaves it.
        assert!(is_lost(&LogText::Earlier(decision(7)), &own));
        assert!(!is_lost(&LogText::Foreign(decision(7)), &own));
        assert!(!is_lost(&LogText::Foreign(decision(8)), &own));
        assert!(!is_lost(&LogText::Earlier(decision(8)), &own));
    }

    #[test]
    fn every_distrusted_decision_has_a_reason() {
        let entry = |decided| PluginEntry {
            decided,
            text: Arc::from([]),
            proposed: LogText::Nothing,
        };
        let own = decision(7);
        let doubt = |decided| distrust_reason(&entry(decided), Some(&own));
        assert_eq!(doubt(LogText::Ours(decision(8))), None);
        assert_eq!(doubt(LogText::Earlier(decision(7))), None);
        let rotated = "the decision that this node follows is signed with another admin.key";
        assert_eq!(doubt(LogText::Foreign(decision(7))), Some(rotated));
        assert!(doubt(LogText::Foreign(decision(8))).is_some());
        assert!(doubt(LogText::Earlier(decision(8))).is_some());
        assert_eq!(doubt(LogText::Malformed("garbage")), Some("garbage"));
    }
}
