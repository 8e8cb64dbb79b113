//! The server's state for one client.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use signalbox_broker::{ConnectionReport, TokenMark};
use signalbox_protocol::{ClientInfo, MemberInfo};
use tokio::time::Instant;

use super::{
    GrantEnd, Outbox, RoomGrant,
    grants::RoomGrants,
    room_changes::{RoomChange, WaitingChanges},
};

/// One client's connection, as everything but its session sees it.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    client: Arc<ClientInfo>,
    v1: bool,
    traces_plugins: bool,
    is_event_stream: bool,
    outbox: Outbox,
    /// The [numbers](TokenMark::numbers) of the mark of its token.
    token: [AtomicU64; 2],
    /// `None` once the connection is gone: it can no longer join rooms.
    rooms: Mutex<Option<Rooms>>,
    opened: Instant,
    silence: Silence,
    /// Whether another connection took its place.
    replaced: AtomicBool,
    /// Whether changes of its rooms wait. A copy of the state in `rooms` that can be read without the lock.
    has_room_changes: AtomicBool,
    /// Whether tokens may have granted it rooms, or changed its `info`; stays set. It spares others the lock of `rooms`.
    has_later_tokens: AtomicBool,
}

/// The rooms of a connection.
#[derive(Debug, Default)]
struct Rooms {
    names: BTreeSet<Arc<str>>,
    /// The total length of all names, in bytes.
    name_bytes: usize,
    /// On the heap, because most connections never have any of it.
    rare: Option<Box<RareRooms>>,
}

/// State about rooms that few connections have.
#[derive(Debug, Default)]
struct RareRooms {
    /// Changes that wait for the session.
    changes: WaitingChanges,
    /// Memberships that tokens grant.
    grants: RoomGrants,
    /// The claim `info` of the token that it has now, if it ever was another one than that of the first token.
    later_info: Option<Option<MemberInfo>>,
}

/// How long a client has been silent, for choosing a connection to replace.
#[derive(Debug, Default)]
struct Silence {
    /// When the first unanswered ping was sent, in milliseconds since the connection was opened; 0 if there is none.
    pinged_ms: AtomicU64,
    /// When the client was last heard before that ping.
    heard_ms: AtomicU64,
    /// Whether the session should check that the client is alive.
    probe: AtomicBool,
}

impl Connection {
    /// A connection of `client`; `v1` means that it speaks `signalbox.v1`.
    pub fn new(client: ClientInfo, v1: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            client: Arc::new(client),
            v1,
            traces_plugins: false,
            is_event_stream: false,
            outbox: Outbox::new(),
            token: TokenMark::NONE.numbers().map(AtomicU64::new),
            rooms: Mutex::new(Some(Rooms::default())),
            opened: Instant::now(),
            silence: Silence::default(),
            replaced: AtomicBool::new(false),
            has_room_changes: AtomicBool::new(false),
            has_later_tokens: AtomicBool::new(false),
        }
    }

    /// Sets whether each `ack` contains the versions of the plugins that saw the message.
    #[must_use]
    pub fn tracing_plugins(self, traces_plugins: bool) -> Self {
        Self {
            traces_plugins,
            ..self
        }
    }

    /// Sets whether its frames go out as server-sent events, and not over a WebSocket.
    #[must_use]
    pub fn over_event_stream(self, is_event_stream: bool) -> Self {
        Self {
            is_event_stream,
            ..self
        }
    }

    /// Sets the mark of its token, if it has one.
    #[must_use]
    pub fn with_token(self, mark: TokenMark) -> Self {
        self.set_token(mark);
        self
    }

    /// Whether its `ack`s contain the versions of the plugins that saw its messages.
    pub fn traces_plugins(&self) -> bool {
        self.traces_plugins
    }

    /// The client.
    pub fn client(&self) -> &Arc<ClientInfo> {
        &self.client
    }

    /// The user's ID.
    pub fn user(&self) -> &str {
        &self.client.user
    }

    /// Whether it asked for `signalbox.v1`, and so for frames beyond those of `websocket-app`.
    pub fn v1(&self) -> bool {
        self.v1
    }

    /// Its queue of frames.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether it is a member of `room`.
    pub fn is_member(&self, room: &str) -> bool {
        self.rooms()
            .as_ref()
            .is_some_and(|rooms| rooms.names.contains(room))
    }

    /// Its description for the API.
    pub fn report(&self) -> ConnectionReport {
        ConnectionReport {
            id: self.client.connection.clone(),
            address: self.client.address.clone(),
            connected_at_ms: self.client.connected_at_ms,
            v1: self.v1,
            event_stream: self.is_event_stream,
            rooms: self.room_count(),
        }
    }

    /// The number of its rooms.
    pub fn room_count(&self) -> usize {
        self.rooms().as_ref().map_or(0, |rooms| rooms.names.len())
    }

    /// The total length of the names of its rooms, in bytes.
    pub fn room_name_bytes(&self) -> usize {
        self.rooms().as_ref().map_or(0, |rooms| rooms.name_bytes)
    }

    /// Gives a change of its rooms to the session. It fails at once if too many wait, and is dropped if the connection is gone.
    pub(super) fn request_room_change(&self, change: RoomChange) {
        {
            let mut rooms = self.rooms();
            let Some(rooms) = rooms.as_mut() else {
                return;
            };
            rooms.rare.get_or_insert_default().changes.add(change);
            self.has_room_changes.store(true, Ordering::Release);
        }
        self.outbox.wake();
    }

    /// Whether the session should carry out changes of its rooms, or end memberships. The session is woken when they come.
    pub fn has_room_changes(&self) -> bool {
        self.has_room_changes.load(Ordering::Acquire)
    }

    /// Takes the changes of its rooms that wait, oldest first.
    pub fn take_room_changes(&self) -> Vec<RoomChange> {
        let mut rooms = self.rooms();
        self.has_room_changes.store(false, Ordering::Release);
        let rare = rooms.as_mut().and_then(|rooms| rooms.rare.as_mut());
        rare.map(|rare| std::mem::take(&mut rare.changes).into_vec())
            .unwrap_or_default()
    }

    /// Grants the membership of `room`, in place of an earlier grant.
    pub(super) fn set_grant(&self, room: &str, grant: RoomGrant) {
        if let Some(rooms) = self.rooms().as_mut() {
            let grants = &mut rooms.rare.get_or_insert_default().grants;
            grants.insert(room.into(), grant);
            self.has_later_tokens.store(true, Ordering::Release);
        }
    }

    /// Forgets the grant of `room`: a membership does not end with a token any more.
    pub fn drop_grant(&self, room: &str) {
        self.with_grants(|grants| grants.remove(room));
    }

    /// When the first membership that a token grants is over. `grace` is how long it outlives its token.
    pub fn first_grant_end(&self, grace: Duration) -> Option<SystemTime> {
        self.with_grants(|grants| grants.first_end(grace))?
    }

    /// Takes the rooms whose grant is over at `now`. `grace` is how long a membership outlives its token. `was_stopped`: the
    /// process did not run until now, so the grace of tokens that expired meanwhile begins now, once.
    pub fn take_ended_grants(
        &self,
        now: SystemTime,
        grace: Duration,
        was_stopped: bool,
    ) -> Vec<(Arc<str>, GrantEnd)> {
        self.with_grants(|grants| grants.take_ended(now, grace, was_stopped))
            .unwrap_or_default()
    }

    /// Ends the memberships that were granted by tokens with a mark that `is_revoked`.
    pub(super) fn revoke_grants(&self, is_revoked: impl Fn(TokenMark) -> bool) {
        if self.with_grants(|grants| grants.revoke(is_revoked)) == Some(true) {
            self.has_room_changes.store(true, Ordering::Release);
            self.outbox.wake();
        }
    }

    /// The `info` that other members of `room` see of its user: that of the token that grants the room, or of the connection's token.
    pub(super) fn member_info(&self, room: &str) -> Option<MemberInfo> {
        let granted = self.with_grants(|grants| grants.info(room)).flatten();
        granted.or_else(|| self.info())
    }

    /// The claim `info` of its token.
    fn info(&self) -> Option<MemberInfo> {
        let later = self.with_rare(|rare| rare.later_info.clone()).flatten();
        later.unwrap_or_else(|| MemberInfo::in_claims(&self.client.claims))
    }

    /// Sets the claim `info` of its token. Returns its rooms if it is another one than before, and no room otherwise.
    pub(super) fn set_info(&self, info: Option<MemberInfo>) -> Vec<Arc<str>> {
        if self.info() == info {
            return Vec::new();
        }
        let mut rooms = self.rooms();
        let Some(rooms) = rooms.as_mut() else {
            return Vec::new();
        };
        rooms.rare.get_or_insert_default().later_info = Some(info);
        self.has_later_tokens.store(true, Ordering::Release);
        rooms.names.iter().cloned().collect()
    }

    fn with_grants<T>(&self, action: impl FnOnce(&mut RoomGrants) -> T) -> Option<T> {
        self.with_rare(|rare| action(&mut rare.grants))
    }

    fn with_rare<T>(&self, action: impl FnOnce(&mut RareRooms) -> T) -> Option<T> {
        if !self.has_later_tokens.load(Ordering::Acquire) {
            return None;
        }
        let mut rooms = self.rooms();
        Some(action(rooms.as_mut()?.rare.as_mut()?))
    }

    /// Notes that a ping was sent at `pinged` to a client that was last heard at `heard`. Later pings change nothing until
    /// the client is heard.
    pub fn note_ping(&self, pinged: Instant, heard: Instant) {
        if self.silence.pinged_ms.load(Ordering::Relaxed) == 0 {
            let heard = self.millis_at(heard);
            self.silence.heard_ms.store(heard, Ordering::Relaxed);
            let pinged = self.millis_at(pinged).max(1);
            self.silence.pinged_ms.store(pinged, Ordering::Release);
        }
    }

    /// Notes that the client was heard.
    pub fn note_heard(&self) {
        // A load costs less than a store, and usually no ping is pending.
        if self.silence.pinged_ms.load(Ordering::Relaxed) != 0 {
            self.silence.pinged_ms.store(0, Ordering::Release);
        }
    }

    /// Whether the session should check if the client is alive. Returns `true` once for each [`probe`](Self::probe).
    pub fn take_probe(&self) -> bool {
        let probe = &self.silence.probe;
        probe.load(Ordering::Relaxed) && probe.swap(false, Ordering::Acquire)
    }

    /// Makes the session ping its client, unless a ping is pending already.
    pub(super) fn probe(&self) {
        if self.silence.pinged_ms.load(Ordering::Relaxed) == 0 {
            self.silence.probe.store(true, Ordering::Release);
            self.outbox.wake();
        }
    }

    /// When the client was last heard, if it has not answered a ping for `patience`.
    pub(super) fn silent_since(&self, patience: Duration) -> Option<Instant> {
        let pinged = self.silence.pinged_ms.load(Ordering::Acquire);
        let pinged_at = self.opened + Duration::from_millis(pinged);
        let heard = self.silence.heard_ms.load(Ordering::Relaxed);
        (pinged != 0 && pinged_at.elapsed() >= patience)
            .then(|| self.opened + Duration::from_millis(heard))
    }

    /// Notes that another connection took its place.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }

    fn millis_at(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.opened).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    /// Replaces the mark of its token. A revocation that is enforced meanwhile may still see the old one.
    pub(super) fn set_token(&self, mark: TokenMark) {
        for (cell, number) in self.token.iter().zip(mark.numbers()) {
            cell.store(number, Ordering::SeqCst);
        }
    }

    /// The mark of its token.
    pub(super) fn token(&self) -> TokenMark {
        let [id, issued_at] = &self.token;
        TokenMark::from_numbers([id.load(Ordering::SeqCst), issued_at.load(Ordering::SeqCst)])
    }

    /// A number that is unique in this process.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Notes that it joined `room`. Returns `false` if it is in the room already, or gone.
    pub(super) fn note_joined(&self, room: Arc<str>) -> bool {
        self.rooms().as_mut().is_some_and(|rooms| {
            let bytes = room.len();
            let joined = rooms.names.insert(room);
            rooms.name_bytes += if joined { bytes } else { 0 };
            joined
        })
    }

    pub(super) fn note_left(&self, room: &str) -> bool {
        self.rooms().as_mut().is_some_and(|rooms| {
            let left = rooms.names.remove(room);
            rooms.name_bytes -= if left { room.len() } else { 0 };
            if let Some(rare) = &mut rooms.rare {
                rare.grants.remove(room);
            }
            left
        })
    }

    /// Marks it as gone, and returns its rooms.
    pub(super) fn retire(&self) -> BTreeSet<Arc<str>> {
        self.rooms().take().unwrap_or_default().names
    }

    /// Whether it has been [retired](Self::retire).
    pub(super) fn is_gone(&self) -> bool {
        self.rooms().is_none()
    }

    fn rooms(&self) -> MutexGuard<'_, Option<Rooms>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
