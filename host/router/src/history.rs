//! Messages to rooms and users with a history, and connections that catch up with it.

use std::{future::poll_fn, sync::Arc};

use signalbox_broker::{AppendKind, AppendOnce, BrokerError, HistoryName, HistoryQuery, Retention};
use signalbox_protocol::{
    CatchUp, CloseCode, Frame, HistoryExcerpt, HistoryRequest, Position, RecoveryFailure,
    RoomPosition,
};
use signalbox_telemetry::trace::Trace;

use super::{
    Connection, Reach, Router,
    catch_up::{self, ReplayLimits},
    read_back,
    rooms::GateOutcome,
};

/// How a connection joins a room with a history, or follows that of its user.
#[derive(Clone, Debug)]
pub struct HistoryJoin {
    /// How much of the history is kept.
    pub retention: Retention,
    /// The old messages that it wants.
    pub catch_up: Option<CatchUp>,
    /// Limits on them.
    pub limits: ReplayLimits,
    /// Whether the caller wants to know how many connections of the user are in the room.
    pub counted: bool,
}

/// A connection that has joined a room with a history, or follows that of its user. Its live messages wait until [`Router::go_live`].
#[derive(Debug)]
pub struct JoinedHistory {
    /// Whether it was no member before.
    pub is_new: bool,
    /// The number of the user's connections on this node that are members; 0 if they were not counted.
    pub connections: usize,
    /// Its place in the history. Live messages follow.
    pub at: RoomPosition,
    /// The old messages that it gets first.
    pub replay: Vec<Frame>,
}

impl Router {
    /// Appends `frame` to the history `name`, and delivers it to the members of the room, or to the user, on all nodes as part of
    /// `trace`. Returns also whether it was appended, or is the repetition of a message that was.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the message was not appended, or if that is unknown.
    pub async fn send_kept(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
        once: Option<AppendOnce<'_>>,
        trace: Trace<'_>,
    ) -> Result<(Reach, AppendKind), BrokerError> {
        let (rooms, room) = self.table.room(name);
        rooms.follow(room, retention);
        let append = self.broker.append(name, frame, retention, once, trace);
        let appended = append.await?;
        if appended.kind == AppendKind::New {
            self.metrics.history.appended.increment();
        }
        if let Some(span) = trace {
            span.set("signalbox.connections", appended.connections as i64);
        }
        let reach = Reach {
            connections: appended.connections,
            nodes: appended.nodes,
        };
        Ok((reach, appended.kind))
    }

    /// Makes `connection` a member of `room`, or lets a member catch up. Its messages wait until [`Router::go_live`]. Returns
    /// `None` if the connection is gone.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the history could not be read. A new member is not one then.
    pub async fn join_with_history(
        &self,
        connection: &Arc<Connection>,
        room: &str,
        join: HistoryJoin,
    ) -> Result<Option<JoinedHistory>, BrokerError> {
        let bytes_max = self.table.outbox_bytes_max();
        let enter = || {
            let rooms = &self.table.rooms;
            rooms.join_gated(connection, room, join.retention, bytes_max)
        };
        let (entered, connections) = if join.counted {
            self.table.counted(connection.user(), room, enter)
        } else {
            (enter(), 0)
        };
        let Some((delivered, is_new)) = entered else {
            self.forget_member(connection, room);
            return Ok(None);
        };
        if is_new {
            self.room_changed(room);
            self.count_member(connection, room).await;
            self.broker.room_settled(room).await;
        }
        let name = HistoryName::Room(room);
        let caught_up = self
            .catch_up_or_give_up(connection, name, delivered, &join)
            .await;
        let (at, replay) = caught_up.inspect_err(|_| {
            if is_new {
                self.leave(connection, room);
            }
        })?;
        Ok(Some(JoinedHistory {
            is_new,
            connections,
            at,
            replay,
        }))
    }

    /// Sends a gated connection the old messages, and then live ones. Must be called by the session of `connection`, which
    /// writes meanwhile.
    pub async fn go_live(
        &self,
        connection: &Arc<Connection>,
        name: HistoryName<'_>,
        joined: JoinedHistory,
    ) {
        for frame in joined.replay {
            let bytes_max = self.table.outbox_bytes_max();
            poll_fn(|cx| {
                connection
                    .outbox()
                    .poll_has_room(cx, frame.len(), bytes_max)
            })
            .await;
            self.table.push_message(connection, frame);
        }
        let (rooms, room) = self.table.room(name);
        let outcome = self.table.count_pushed(name, |push| {
            rooms.open_gate(connection, room, &joined.at, push)
        });
        if outcome == GateOutcome::Over {
            // It was told its place, so nothing after it may be left out.
            let reason = "the client reads too slowly";
            connection.outbox().close(CloseCode::SLOW_CONSUMER, reason);
        }
    }

    /// The position of the history of `room`, which is created if there is none.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if it could not be read.
    pub async fn history_position(
        &self,
        room: &str,
        retention: Retention,
    ) -> Result<Position, BrokerError> {
        let (name, query) = (HistoryName::Room(room), HistoryQuery::POSITION);
        let page = self.broker.read_history(name, query, retention).await?;
        Ok(page.position)
    }

    /// Reads messages of the history of `room` for a member, as many as `limits` and `request` allow. The history is created if
    /// there is none: the member follows it.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if it could not be read.
    pub async fn read_history(
        &self,
        room: &str,
        request: HistoryRequest,
        retention: Retention,
        limits: ReplayLimits,
    ) -> Result<HistoryExcerpt, BrokerError> {
        let (name, query) = (HistoryName::Room(room), read_back::query(request, limits));
        let page = self.broker.read_history(name, query, retention).await?;
        Ok(read_back::excerpt(page, request, limits))
    }

    /// Reads messages like [`Router::read_history`], for a reader that is no member: it creates no history.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if it could not be read.
    pub async fn find_history(
        &self,
        room: &str,
        request: HistoryRequest,
        retention: Retention,
        limits: ReplayLimits,
    ) -> Result<HistoryExcerpt, BrokerError> {
        let (name, query) = (HistoryName::Room(room), read_back::query(request, limits));
        let page = self.broker.find_history(name, query, retention).await?;
        Ok(page.map_or_else(HistoryExcerpt::default, |page| {
            read_back::excerpt(page, request, limits)
        }))
    }

    /// Finds the place of a gated connection, and the old messages that it wants. If that fails, ends the gate.
    pub(super) async fn catch_up_or_give_up(
        &self,
        connection: &Arc<Connection>,
        name: HistoryName<'_>,
        delivered: Option<Position>,
        join: &HistoryJoin,
    ) -> Result<(RoomPosition, Vec<Frame>), BrokerError> {
        let caught_up = self.catch_up(connection, name, delivered, join).await;
        match &caught_up {
            Ok((at, _)) => {
                if let Some(recovery) = at.recovery {
                    let recoveries = &self.metrics.history.recoveries;
                    recoveries.of(recovery.err()).increment();
                }
            }
            Err(_) => {
                let (rooms, room) = self.table.room(name);
                self.table.count_pushed(name, |push| {
                    ((), rooms.give_up_gate(connection, room, push))
                });
            }
        }
        caught_up
    }

    async fn catch_up(
        &self,
        connection: &Arc<Connection>,
        name: HistoryName<'_>,
        delivered: Option<Position>,
        join: &HistoryJoin,
    ) -> Result<(RoomPosition, Vec<Frame>), BrokerError> {
        let (rooms, room) = self.table.room(name);
        let (at, replay) = match (delivered, &join.catch_up) {
            (Some(position), None) => (
                RoomPosition {
                    position,
                    recovery: None,
                },
                Vec::new(),
            ),
            (Some(position), Some(CatchUp::Since(since))) if *since == position => (
                RoomPosition {
                    position,
                    recovery: Some(Ok(0)),
                },
                Vec::new(),
            ),
            (delivered, catch_up) => {
                let catch_up = catch_up.as_ref();
                let query = catch_up::query(catch_up, join.limits);
                let page = self
                    .broker
                    .read_history(name, query, join.retention)
                    .await?;
                let begun = self
                    .table
                    .count_pushed(name, |push| rooms.begin_after(room, &page.position, push));
                let epoch = delivered.or(begun).map(|position| position.epoch);
                if epoch.is_some_and(|epoch| epoch != page.position.epoch) {
                    self.table.repairs.add(name);
                }
                catch_up::plan(catch_up, page, join.limits)
            }
        };
        let over = rooms.restart_gate_if_over(connection, room);
        Ok(match over {
            None => (at, replay),
            Some(position) => {
                let recovery = at.recovery.map(|_| Err(RecoveryFailure::TooMany));
                (RoomPosition { position, recovery }, Vec::new())
            }
        })
    }
}
