//! Notices which rooms are in use, and who is in them, on all nodes together.
//!
//! Changes are only marked; a task looks up the state. A node reports what is there on it, and, after a grace, what left it
//! and is on no other node. The queue notes what was reported, together with the event, so nodes that report the same thing
//! make one event. After it has reported that something is away, a node looks once more, and corrects the report if another node
//! has it by now: so the last report is right. What a node that died reported is found by reading all that was reported.

mod leaving;
mod name;
mod watcher;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use signalbox_config::WebhookEvent;
use signalbox_router::RoomObserver;
use tokio::sync::Notify;

use self::name::WatchedName;
pub(crate) use self::watcher::RoomWatcher;
use super::{hooks::HookTable, lock};

/// The most changes that wait to be looked up. Beyond it, everything is looked up.
const CHANGED_MAX: usize = 100_000;

/// The changes of rooms that webhooks want to know of.
pub struct WatchedRooms {
    hooks: Arc<HookTable>,
    marks: Mutex<ChangeMarks>,
    woken: Notify,
    grace_ms: AtomicU64,
}

/// The rooms and members that must be looked up.
#[derive(Default)]
struct ChangeMarks {
    changed: HashSet<WatchedName>,
    /// Whether everything on this node must be.
    all: bool,
}

impl WatchedRooms {
    pub(crate) fn new(hooks: Arc<HookTable>) -> Self {
        Self {
            hooks,
            marks: Mutex::default(),
            woken: Notify::new(),
            grace_ms: AtomicU64::new(0),
        }
    }

    /// The webhooks changed, or the time from a leave to its report.
    pub(crate) fn settings_changed(&self, grace: Duration) {
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.grace_ms.store(grace, Ordering::Relaxed);
        self.mark_all();
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms.load(Ordering::Relaxed))
    }

    /// Whether any webhook wants to know of rooms at all.
    fn is_watching(&self) -> bool {
        self.wants_rooms() || self.wants_members()
    }

    fn wants_rooms(&self) -> bool {
        self.hooks
            .wants_any([WebhookEvent::RoomOccupied, WebhookEvent::RoomVacated])
    }

    fn wants_members(&self) -> bool {
        self.hooks
            .wants_any([WebhookEvent::MemberJoined, WebhookEvent::MemberLeft])
    }

    /// Whether any webhook wants to know of `name`.
    fn wants(&self, name: &WatchedName) -> bool {
        let (came, went) = name.events();
        let room = name.room();
        self.hooks.wants_about(came, room) || self.hooks.wants_about(went, room)
    }

    fn mark(&self, name: WatchedName) {
        if !self.wants(&name) {
            return;
        }
        let mut marks = lock(&self.marks);
        if marks.changed.len() < CHANGED_MAX {
            marks.changed.insert(name);
        } else {
            marks.all = true;
        }
        drop(marks);
        self.woken.notify_one();
    }

    fn mark_all(&self) {
        lock(&self.marks).all = true;
        self.woken.notify_one();
    }

    fn take_marks(&self) -> ChangeMarks {
        std::mem::take(&mut *lock(&self.marks))
    }

    /// Marks these again.
    fn restore(&self, marks: ChangeMarks) {
        let mut current = lock(&self.marks);
        current.all |= marks.all;
        current.changed.extend(marks.changed);
    }
}

impl RoomObserver for WatchedRooms {
    fn room_changed(&self, room: &str) {
        if self.wants_rooms() {
            self.mark(WatchedName::Room(room.into()));
        }
    }

    fn member_changed(&self, room: &str, user: &str) {
        if self.wants_members() {
            self.mark(WatchedName::Member {
                room: room.into(),
                user: user.into(),
            });
        }
    }

    fn check_all(&self) {
        if self.is_watching() {
            self.mark_all();
        }
    }
}
