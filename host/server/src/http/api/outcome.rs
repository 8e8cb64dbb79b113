//! The answers of all nodes to a request about a user.

use signalbox_protocol::ErrorCode;
use signalbox_router::{NodeReport, UserAnswer, UserOutcome};

use crate::http::error::ApiError;

/// The sum of the answers of nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AnswerSum {
    /// Connections on the nodes that reported their number.
    pub(super) connections: usize,
    /// Connections for which the request could not be carried out.
    pub(super) failed: usize,
    /// The nodes that did not answer.
    pub(super) unanswered: Vec<String>,
}

/// A change that all nodes confirmed, but those that cannot be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// The connections that it concerned.
    pub(super) connections: usize,
    /// The connections for which it could not be carried out.
    pub(super) failed: usize,
    /// Servers of `websocket-app` that hold connections of the user and cannot be asked.
    pub(super) unanswered: Vec<String>,
}

impl AnswerSum {
    /// Adds up the answers of this node and others.
    pub(super) fn of(here: &UserAnswer, reports: &[NodeReport]) -> Self {
        let mut sum = Self::default();
        sum.add(here);
        for report in reports {
            if !sum.add(&report.answer) {
                sum.unanswered.push(report.node.clone());
            }
        }
        sum
    }

    /// Returns `false` if there is no answer.
    fn add(&mut self, answer: &UserAnswer) -> bool {
        match answer {
            UserAnswer::Connections(count) => self.connections += count,
            UserAnswer::Listed(list) => self.connections += list.len(),
            UserAnswer::RoomChanged {
                connections,
                failed,
            } => {
                self.connections += connections;
                self.failed += failed;
            }
            UserAnswer::Nothing | UserAnswer::CannotBeAsked => return false,
        }
        true
    }
}

impl Confirmed {
    /// Adds up the answers to a request, after which connections were `done`.
    ///
    /// # Errors
    /// Returns 503 if a node did not answer, or if the other nodes are unknown.
    pub(super) fn of(asked: UserOutcome, done: &str) -> Result<Self, ApiError> {
        let incomplete = |connections: usize, why: &str| {
            let message = format!("{connections} connections {done}, and {why}; try again");
            ApiError::of(ErrorCode::Unavailable, message)
        };
        let reports = asked.elsewhere.map_err(|error| {
            let here = AnswerSum::of(&asked.here, &[]);
            incomplete(here.connections, &error.to_string())
        })?;
        let AnswerSum {
            connections,
            failed,
            unanswered,
        } = AnswerSum::of(&asked.here, &reports);
        let is_silent = |report: &&NodeReport| report.answer == UserAnswer::Nothing;
        if let Some(report) = reports.iter().find(is_silent) {
            let why = format!("node {} did not answer in time", report.node);
            return Err(incomplete(connections, &why));
        }
        Ok(Self {
            connections,
            failed,
            unanswered,
        })
    }
}

/// The outcome of a question about a user that has `here` connections on this node, with the answers of the nodes `n0`,
/// `n1` and so on.
#[cfg(test)]
pub(super) fn user_outcome(here: usize, answers: &[UserAnswer]) -> UserOutcome {
    let reports = (0..).zip(answers).map(|(index, answer)| NodeReport {
        node: format!("n{index}"),
        answer: answer.clone(),
    });
    UserOutcome {
        here: UserAnswer::Connections(here),
        elsewhere: Ok(reports.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(answers: &[UserAnswer]) -> Result<Confirmed, ApiError> {
        Confirmed::of(user_outcome(1, answers), "were closed")
    }

    #[test]
    fn a_change_that_a_node_does_not_confirm_is_an_error_to_try_again() {
        let two = UserAnswer::Connections(2);
        let done = confirmed(std::slice::from_ref(&two)).unwrap();
        assert_eq!((done.connections, done.unanswered.len()), (3, 0));
        let error = confirmed(&[two, UserAnswer::Nothing]).unwrap_err();
        assert!(error.message().contains("n1"), "{error:?}");
        let foreign = confirmed(&[UserAnswer::CannotBeAsked]).unwrap();
        assert_eq!(foreign.unanswered, ["n0"]);
    }

    #[test]
    fn connections_that_failed_are_counted_apart() {
        let changed = UserAnswer::RoomChanged {
            connections: 2,
            failed: 3,
        };
        let done = confirmed(&[changed]).unwrap();
        assert_eq!((done.connections, done.failed), (3, 3));
    }
}
