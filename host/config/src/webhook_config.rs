//! `[[webhooks]]`: the addresses that get events.

use std::{fmt, time::Duration};

use super::values::MASK;

/// An event that webhooks can get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WebhookEvent {
    /// A connection was admitted.
    Connected,
    /// It ended.
    Disconnected,
    /// The first member joined a room.
    RoomOccupied,
    /// The last member left a room.
    RoomVacated,
    /// A user joined a room with presence.
    MemberJoined,
    /// A user left a room with presence.
    MemberLeft,
    /// A message reached nobody.
    Undelivered,
}

/// One webhook. `Debug` shows neither its secrets nor its URL, which may contain one.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The address that events are sent to, `http://` or `https://`. No two webhooks have the same.
    pub url: String,
    /// Its name in logs and metrics: the host of the address, with `#2` and so on if earlier webhooks have the same host.
    pub label: String,
    /// The secret that signs requests, at least 32 bytes.
    pub secret: String,
    /// A second secret that signs them too while secrets are rotated.
    pub secret_previous: Option<String>,
    /// The events that it gets, at least one.
    pub events: Vec<WebhookEvent>,
    /// The rooms whose events it gets: names, or prefixes that end in `*`; empty means all.
    pub rooms: Vec<String>,
    /// The most events in one request, 1–1,000.
    pub batch_max: usize,
    /// How long an event may wait for others, at most 60 s.
    pub batch_time: Duration,
    /// Time for one request, 10 ms – 60 s.
    pub timeout: Duration,
    /// The most events that wait, 1–1,000,000.
    pub queue_max: usize,
}

impl WebhookEvent {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Connected,
        Self::Disconnected,
        Self::RoomOccupied,
        Self::RoomVacated,
        Self::MemberJoined,
        Self::MemberLeft,
        Self::Undelivered,
    ];

    /// Its name in the configuration and in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::RoomOccupied => "room_occupied",
            Self::RoomVacated => "room_vacated",
            Self::MemberJoined => "member_joined",
            Self::MemberLeft => "member_left",
            Self::Undelivered => "undelivered",
        }
    }

    /// The event with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

impl WebhookConfig {
    /// Whether it gets events about `room`.
    pub fn is_for_room(&self, room: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => pattern == room,
        };
        self.rooms.is_empty() || self.rooms.iter().any(matches)
    }
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("label", &self.label)
            .field("secret", &MASK)
            .field(
                "secret_previous",
                &self.secret_previous.as_ref().map(|_| MASK),
            )
            .field("events", &self.events)
            .field("rooms", &self.rooms)
            .field("batch_max", &self.batch_max)
            .field("batch_time", &self.batch_time)
            .field("timeout", &self.timeout)
            .field("queue_max", &self.queue_max)
            .finish_non_exhaustive()
    }
}
