//! The connections of this node: by user, by room, and all of them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use signalbox_broker::{
    HistoryName, HistoryPage, KeptMessage, LISTED_MAX, LocalNode, MemberReport, OwnedHistoryName,
    PendingAnswer, PostOutcome, PostedFrame, Revoked, Target, UserAnswer, UserRequest,
};
use signalbox_protocol::{Frame, Position};
use signalbox_telemetry::metrics::{DropReason, Metrics};

use super::{
    Connection, PendingWrite, PostBoxes, PushError, RoomObserver,
    counted::UserTurns,
    presence::Presence,
    repair::RepairQueue,
    room_changes::{self, RoomAction, RoomChange},
    rooms::{Comparison, ComparisonStart, KeptArrival, KnownPosition, Push, RoomTable},
    user_histories::UserHistories,
    write_batch,
};

/// The connections of this node.
///
/// Guards of the maps are held while frames are pushed into outboxes, which never waits, and never across an `await`.
pub struct LocalTable {
    pub(super) users: DashMap<Box<str>, UserEntry>,
    pub(super) rooms: RoomTable,
    /// The histories of users.
    pub(super) user_histories: UserHistories,
    /// Rooms and users that must be compared with their histories.
    pub(super) repairs: RepairQueue,
    /// The users in rooms with presence, and who wants to know about them.
    pub(super) presence: Presence,
    pub(super) all: DashMap<u64, Arc<Connection>>,
    posts: Arc<PostBoxes>,
    /// Learns of changes of rooms.
    pub(super) observer: Option<Arc<dyn RoomObserver>>,
    /// Connections, and upgrades in progress.
    pub(super) slots: AtomicUsize,
    outbox_bytes_max: AtomicUsize,
    /// Locks for counted changes of rooms.
    pub(super) user_turns: UserTurns,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Default)]
pub(super) struct UserEntry {
    /// Connections, and upgrades in progress.
    pub(super) slots: usize,
    pub(super) connections: Vec<Arc<Connection>>,
}

impl LocalTable {
    /// An empty table; each outbox is bounded by `outbox_bytes_max`.
    pub fn new(outbox_bytes_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            users: DashMap::new(),
            rooms: RoomTable::default(),
            user_histories: UserHistories::default(),
            repairs: RepairQueue::default(),
            presence: Presence::default(),
            all: DashMap::new(),
            posts: Arc::default(),
            observer: None,
            slots: AtomicUsize::new(0),
            outbox_bytes_max: AtomicUsize::new(outbox_bytes_max),
            user_turns: UserTurns::default(),
            metrics,
        }
    }

    /// Changes the bound of every outbox, including existing ones.
    pub fn set_outbox_bytes_max(&self, bytes: usize) {
        self.outbox_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// The bound of every outbox, in bytes.
    pub(super) fn outbox_bytes_max(&self) -> usize {
        self.outbox_bytes_max.load(Ordering::Relaxed)
    }

    /// Puts a frame of the server itself, such as an `ack`, into a connection's outbox, and ensures that it is written.
    pub fn push(&self, connection: &Arc<Connection>, frame: Frame) {
        if let Err(PushError::Full { lost }) = self.push_frame(connection, frame, false) {
            self.count_lost(DropReason::SlowConsumer, lost);
        }
    }

    /// Puts a frame of the server itself before all others into the outbox of a connection to which nothing was written yet.
    pub fn push_first(&self, connection: &Connection, frame: Frame) {
        connection.outbox().push_first(frame);
    }

    /// Puts a message into a connection's outbox, ensures that it is written, and returns whether it was taken. Counts it as
    /// delivered, or as dropped with the reason.
    pub fn push_message(&self, connection: &Arc<Connection>, frame: Frame) -> bool {
        let taken = self.offer(connection, frame);
        self.metrics.messages_delivered.add(u64::from(taken));
        taken
    }

    /// Like [`push_message`](Self::push_message), for callers that count deliveries themselves.
    fn offer(&self, connection: &Arc<Connection>, frame: Frame) -> bool {
        match self.push_frame(connection, frame, true) {
            Ok(()) => return true,
            Err(PushError::Full { lost }) => self.count_lost(DropReason::SlowConsumer, lost + 1),
            Err(PushError::Closing) => self.count_lost(DropReason::Closing, 1),
        }
        false
    }

    /// Like [`offer`](Self::offer), for one of a user's connections. A connection that is being closed no longer
    /// counts, and its refusal is not a loss: the message may follow the user.
    fn offer_to_user(&self, connection: &Arc<Connection>, frame: Frame) -> bool {
        match self.push_frame(connection, frame, true) {
            Ok(()) => return true,
            Err(PushError::Full { lost }) => self.count_lost(DropReason::SlowConsumer, lost + 1),
            Err(PushError::Closing) => {}
        }
        false
    }

    fn push_frame(
        &self,
        connection: &Arc<Connection>,
        frame: Frame,
        is_message: bool,
    ) -> Result<(), PushError> {
        let bytes_max = self.outbox_bytes_max();
        let pushed = connection.outbox().push(frame, is_message, bytes_max)?;
        if pushed == PendingWrite::Unwritten && !write_batch::defer_flush(connection) {
            connection.outbox().wake_to_write();
        }
        Ok(())
    }

    /// Discards the queued frames of `connection`, and counts the messages among them as lost for `reason`.
    pub fn detach(&self, connection: &Connection, reason: DropReason) {
        self.count_lost(reason, connection.outbox().detach());
    }

    /// Discards the queued frames of all connections, because the node no longer waits for its clients.
    pub fn cut_off(&self) {
        for connection in self.connections() {
            self.detach(&connection, DropReason::CutOff);
        }
    }

    fn count_lost(&self, reason: DropReason, messages: usize) {
        if messages > 0 {
            let lost = self.metrics.messages_dropped.of(reason);
            lost.add(messages as u64);
        }
    }

    /// The connections that frames can be posted to.
    pub fn posts(&self) -> &Arc<PostBoxes> {
        &self.posts
    }

    /// The open connections, in no particular order.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.all.iter().map(|entry| entry.value().clone()).collect()
    }

    /// The number of connections that are open or being opened.
    pub fn len(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn insert(&self, connection: Arc<Connection>) {
        self.all.insert(connection.number(), connection.clone());
        let mut entry = self.users.entry(connection.user().into()).or_default();
        entry.connections.push(connection.clone());
        drop(entry);
        self.user_histories.admit(&connection);
    }

    /// Removes `connection`, and returns its rooms.
    pub(super) fn remove(&self, connection: &Arc<Connection>) -> BTreeSet<Arc<str>> {
        self.all.remove(&connection.number());
        if let Some(mut entry) = self.users.get_mut(connection.user()) {
            entry
                .connections
                .retain(|other| other.number() != connection.number());
        }
        let rooms = connection.retire();
        self.user_histories.remove(connection);
        for room in &rooms {
            self.rooms.remove(connection, room);
        }
        rooms
    }

    pub(super) fn leave(&self, connection: &Connection, room: &str) -> bool {
        let left = connection.note_left(room);
        if left {
            self.rooms.remove(connection, room);
        }
        left
    }

    /// The room with the history `name`, and the table in which it is.
    pub(super) fn room<'n>(&self, name: HistoryName<'n>) -> (&RoomTable, &'n str) {
        match name {
            HistoryName::Room(room) => (&self.rooms, room),
            HistoryName::User(user) => (&self.user_histories.rooms, user),
        }
    }

    /// The histories with a known position. `time`: see [`KnownPosition::is_busy`].
    pub(super) fn history_positions(
        &self,
        time: Duration,
    ) -> Vec<(OwnedHistoryName, KnownPosition)> {
        let of_rooms = self.rooms.positions(time).into_iter();
        let of_rooms = of_rooms.map(|(room, known)| (OwnedHistoryName::Room(room), known));
        let of_users = self.user_histories.rooms.positions(time).into_iter();
        let of_users = of_users.map(|(user, known)| (OwnedHistoryName::User(user), known));
        of_rooms.chain(of_users).collect()
    }

    /// The state from which a comparison with the history `name` begins, if it can.
    pub(super) fn begin_comparison(&self, name: HistoryName<'_>) -> Option<ComparisonStart> {
        let (rooms, room) = self.room(name);
        rooms.begin_comparison(room)
    }

    /// Compares the delivered messages with `page` of the history `name`, delivers those that were missing, and tells the
    /// clients if some cannot be delivered.
    pub(super) fn compare(
        &self,
        name: HistoryName<'_>,
        start: &ComparisonStart,
        page: &HistoryPage,
    ) -> Comparison {
        let history = &self.metrics.history;
        let (rooms, room) = self.room(name);
        let comparison = self.count_pushed(name, |push| {
            let (comparison, delivered) = rooms.compare(room, start, page, push);
            history.repaired.add(delivered as u64);
            (comparison, delivered)
        });
        if matches!(comparison, Comparison::Missed(..)) {
            history.missed.increment();
        }
        comparison
    }

    /// Calls `deliver` with the way to push frames to the owner of the history `name`, and counts the deliveries that it
    /// returns.
    pub(super) fn count_pushed<T>(
        &self,
        name: HistoryName<'_>,
        deliver: impl FnOnce(Push<'_>) -> (T, usize),
    ) -> T {
        let push = Push {
            message: &|connection, frame| match name {
                HistoryName::Room(_) => self.offer(connection, frame),
                HistoryName::User(_) => self.offer_to_user(connection, frame),
            },
            notice: &|connection, frame| self.push(connection, frame),
        };
        let (result, delivered) = deliver(push);
        self.metrics.messages_delivered.add(delivered as u64);
        result
    }

    /// Delivers a message of the history of a user that this node does not follow, because it keeps no histories of users, or
    /// the user is not here.
    fn deliver_unfollowed(&self, name: HistoryName<'_>, at: &Position, frame: &Frame) -> usize {
        let HistoryName::User(user) = name else {
            return 0;
        };
        let Some(entry) = self.users.get(user) else {
            return 0;
        };
        let kept = KeptMessage {
            offset: at.offset,
            frame: frame.clone(),
        };
        self.count_pushed(name, |push| {
            let taken = push.to_devices(&entry.connections, &kept);
            (taken, taken)
        })
    }
}

impl LocalNode for LocalTable {
    fn holds_user(&self, user: &str) -> bool {
        self.users.get(user).is_some_and(|entry| {
            entry
                .connections
                .iter()
                .any(|open| !open.outbox().is_closing())
        })
    }

    fn holds_room(&self, room: &str) -> bool {
        self.rooms.contains(room)
    }

    fn deliver(&self, target: Target<'_>, frame: &Frame) -> usize {
        let taken = match target {
            Target::User(user) => self.users.get(user).map_or(0, |entry| {
                entry
                    .connections
                    .iter()
                    .filter(|connection| self.offer_to_user(connection, frame.clone()))
                    .count()
            }),
            Target::Room(room) => {
                return self.count_pushed(HistoryName::Room(room), |push| {
                    let taken = self.rooms.deliver(room, frame, push);
                    (taken, taken)
                });
            }
            Target::Everyone => self
                .all
                .iter()
                .filter(|entry| self.offer(entry.value(), frame.clone()))
                .count(),
        };
        self.metrics.messages_delivered.add(taken as u64);
        taken
    }

    fn deliver_kept(&self, name: HistoryName<'_>, at: &Position, frame: &Frame) -> usize {
        let (rooms, room) = self.room(name);
        let delivery = self.count_pushed(name, |push| {
            let delivery = rooms.deliver_kept(room, at, frame, push);
            (delivery, delivery.delivered)
        });
        match delivery.arrival {
            Some(KeptArrival::Early) => self.repairs.add_if_waiting(name),
            Some(KeptArrival::Contradiction) => self.repairs.add(name),
            None if delivery.members == 0 => return self.deliver_unfollowed(name, at, frame),
            Some(KeptArrival::InOrder | KeptArrival::Repeated) | None => {}
        }
        delivery.members
    }

    fn check_histories(&self) {
        self.repairs.check_all();
    }

    fn carry_out(&self, user: &str, request: &UserRequest) -> PendingAnswer {
        let entry = self.users.get(user);
        let connections = entry.iter().flat_map(|entry| &entry.connections);
        let open = connections.filter(|connection| !connection.outbox().is_closing());
        let connections = match request {
            UserRequest::Join { room } => {
                return change_rooms(open, room, RoomAction::Join).right_future();
            }
            UserRequest::Leave { room } => {
                return change_rooms(open, room, RoomAction::Leave).right_future();
            }
            UserRequest::List => {
                let listed = open.take(LISTED_MAX).map(|connection| connection.report());
                let listed = UserAnswer::Listed(listed.collect());
                return future::ready(listed).left_future();
            }
            UserRequest::Count => open.count(),
            UserRequest::Disconnect { code, reason } => open
                .inspect(|connection| connection.outbox().close(*code, reason.as_str()))
                .count(),
            UserRequest::DisconnectOne {
                connection,
                code,
                reason,
            } => open
                .filter(|open| open.client().connection == *connection)
                .inspect(|one| one.outbox().close(*code, reason.as_str()))
                .count(),
        };
        future::ready(UserAnswer::Connections(connections)).left_future()
    }

    fn take_post(&self, post: PostedFrame<'_>) -> PostOutcome {
        self.posts.take(post)
    }

    fn count_members(&self, room: &str) -> usize {
        self.rooms.len(room)
    }

    fn enforce(&self, revoked: &Revoked) {
        self.close_revoked(revoked);
    }

    fn member(&self, room: &str, user: &str) -> Option<MemberReport> {
        self.presence.local().member(room, user)
    }

    fn members(&self, room: &str) -> Vec<MemberReport> {
        self.presence.local().members(room)
    }

    fn members_changed(&self, room: &str) {
        self.presence.changed(room);
    }

    fn check_members(&self) {
        self.presence.check_all();
        if let Some(observer) = &self.observer {
            observer.check_all();
        }
    }
}

/// Asks the sessions of `connections` to change their rooms. The result counts the connections that did.
fn change_rooms<'a>(
    connections: impl Iterator<Item = &'a Arc<Connection>>,
    room: &str,
    action: RoomAction,
) -> BoxFuture<'static, UserAnswer> {
    let room: Arc<str> = room.into();
    room_changes::count(connections.map(|connection| {
        let (change, promised) = RoomChange::new(room.clone(), action);
        connection.request_room_change(change);
        promised
    }))
}

#[cfg(test)]
pub(super) mod tests;
