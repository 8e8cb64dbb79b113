//! Changes of a connection's rooms that others want. The session of the connection carries them out, so they are in order with
//! those that the client wants.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use signalbox_broker::UserAnswer;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// The most changes that wait for one session; more fail at once.
const WAITING_MAX: usize = 64;

/// The longest time that the results of changes are waited for.
const TIME_MAX: Duration = Duration::from_secs(5);

/// A change of a connection's rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomAction {
    /// It becomes a member.
    Join,
    /// It is no longer a member.
    Leave,
}

/// The result of a [`RoomChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomChangeResult {
    /// The connection is a member now, or left.
    Done,
    /// There was nothing to leave.
    Unneeded,
    /// It could not join.
    Failed,
}

/// A change that waits for the session of a connection. If it is dropped, the connection counts as gone.
#[derive(Debug)]
pub struct RoomChange {
    room: Arc<str>,
    action: RoomAction,
    result: oneshot::Sender<RoomChangeResult>,
}

/// The result of a change, once there is one.
pub(super) type PromisedChange = oneshot::Receiver<RoomChangeResult>;

/// The changes that wait for one session, oldest first.
#[derive(Debug, Default)]
pub(super) struct WaitingChanges(Vec<RoomChange>);

impl RoomChange {
    pub(super) fn new(room: Arc<str>, action: RoomAction) -> (Self, PromisedChange) {
        let (result, promised) = oneshot::channel();
        let change = Self {
            room,
            action,
            result,
        };
        (change, promised)
    }

    /// The name of the room.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// What is wanted.
    pub fn action(&self) -> RoomAction {
        self.action
    }

    /// Reports the result.
    pub fn finish(self, result: RoomChangeResult) {
        // Otherwise nobody waits any more.
        let _ = self.result.send(result);
    }
}

impl WaitingChanges {
    /// Adds `change`, or fails it if too many wait.
    pub(super) fn add(&mut self, change: RoomChange) {
        if self.0.len() < WAITING_MAX {
            self.0.push(change);
        } else {
            change.finish(RoomChangeResult::Failed);
        }
    }

    pub(super) fn into_vec(self) -> Vec<RoomChange> {
        self.0
    }
}

/// Counts the results once all are there, or after [`TIME_MAX`] at the latest.
pub(super) fn count(
    changes: impl Iterator<Item = PromisedChange>,
) -> BoxFuture<'static, UserAnswer> {
    let end = Instant::now() + TIME_MAX;
    let changes: Vec<_> = changes.map(|change| timeout_at(end, change)).collect();
    async move {
        let (mut connections, mut failed) = (0, 0);
        for result in join_all(changes).await {
            match result {
                Ok(Ok(RoomChangeResult::Done)) => connections += 1,
                Ok(Ok(RoomChangeResult::Failed)) | Err(_) => failed += 1,
                Ok(Ok(RoomChangeResult::Unneeded) | Err(_)) => {}
            }
        }
        UserAnswer::RoomChanged {
            connections,
            failed,
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use signalbox_broker::{LocalNode as _, UserRequest};

    use super::*;
    use crate::{
        Connection, LocalTable,
        table::tests::{connection, table},
    };

    /// A table with this many connections of user `a`.
    fn open(count: usize) -> (Arc<LocalTable>, Vec<Arc<Connection>>) {
        let table = table();
        let open: Vec<_> = (0..count).map(|_| connection("a")).collect();
        for connection in &open {
            table.insert(connection.clone());
        }
        (table, open)
    }

    fn leave() -> UserRequest {
        let room = "r".to_owned();
        UserRequest::Leave { room }
    }

    fn answer(connections: usize, failed: usize) -> UserAnswer {
        UserAnswer::RoomChanged {
            connections,
            failed,
        }
    }

    #[tokio::test]
    async fn the_answer_waits_for_the_sessions_and_counts_their_changes() {
        let (table, open) = open(4);
        let wanted = table.carry_out("a", &leave());
        let results = [
            RoomChangeResult::Done,
            RoomChangeResult::Failed,
            RoomChangeResult::Unneeded,
        ];
        for (connection, result) in open.iter().zip(results) {
            assert!(connection.has_room_changes());
            let mut changes = connection.take_room_changes();
            assert!(!connection.has_room_changes());
            let change = changes.pop().expect("a change");
            assert_eq!((change.room(), change.action()), ("r", RoomAction::Leave));
            change.finish(result);
        }
        // The last one ends before it has looked.
        table.remove(&open[3]);
        assert_eq!(wanted.await, answer(1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_too_late_has_failed() {
        let (table, open) = open(1);
        assert_eq!(table.carry_out("a", &leave()).await, answer(0, 1));
        for change in open[0].take_room_changes() {
            change.finish(RoomChangeResult::Done);
        }
    }

    #[tokio::test]
    async fn waiting_changes_per_session_are_bounded() {
        let (table, open) = open(1);
        let wanted = (0..=WAITING_MAX).map(|_| table.carry_out("a", &leave()));
        let wanted: Vec<_> = wanted.collect();
        let changes = open[0].take_room_changes();
        assert_eq!(changes.len(), WAITING_MAX);
        for change in changes {
            change.finish(RoomChangeResult::Done);
        }
        let answers = join_all(wanted).await;
        let (last, others) = answers.split_last().expect("answers");
        assert_eq!(*last, answer(0, 1));
        assert!(others.iter().all(|other| *other == answer(1, 0)));
    }

    #[tokio::test]
    async fn a_connection_that_is_gone_does_not_count() {
        let (table, open) = open(1);
        open[0].retire();
        assert_eq!(table.carry_out("a", &leave()).await, answer(0, 0));
    }
}
