//! The message that a call is about, and a copy of it.

use super::bindings::imported::types as raw;

/// The message that a call is about, as the guest sees it.
pub type GuestMessage<'a> = raw::Message<'a>;
/// The destination of the message, as the guest sees it.
pub type GuestDestination<'a> = raw::DestinationParam<'a>;

/// The size of the buffer that is kept from call to call, in bytes. A larger one is released before the next message.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// A copy of the message that a call is about: the call may continue on another thread, so it borrows nothing. The next
/// message reuses the buffer, so that a copy allocates nothing.
#[derive(Default)]
pub(super) struct MessageCopy {
    /// All texts, one after the other.
    texts: String,
    /// The end of each text but the last: `id`, `event-type`, `sender`, and the name in the destination.
    ends: [usize; 4],
    to: Option<To>,
    timestamp: u64,
}

/// A destination without its name.
#[derive(Clone, Copy)]
enum To {
    Sender,
    User,
    Room,
    Everyone,
}

impl MessageCopy {
    /// Copies `message`.
    pub(super) fn set(&mut self, message: &GuestMessage<'_>) {
        if self.texts.capacity() > KEPT_BYTES_MAX {
            self.texts = String::new();
        }
        let (to, name) = match message.destination {
            None => (None, ""),
            Some(GuestDestination::Sender) => (Some(To::Sender), ""),
            Some(GuestDestination::User(user)) => (Some(To::User), user),
            Some(GuestDestination::Room(room)) => (Some(To::Room), room),
            Some(GuestDestination::Everyone) => (Some(To::Everyone), ""),
        };
        self.texts.clear();
        let texts = [message.id, message.event_type, message.sender, name];
        self.texts
            .reserve(texts.iter().map(|text| text.len()).sum::<usize>() + message.payload.len());
        for (text, end) in texts.into_iter().zip(&mut self.ends) {
            self.texts.push_str(text);
            *end = self.texts.len();
        }
        self.texts.push_str(message.payload);
        self.to = to;
        self.timestamp = message.timestamp;
    }

    /// The message.
    pub(super) fn get(&self) -> GuestMessage<'_> {
        let [id, event_type, sender, name] = self.ends;
        let name = &self.texts[sender..name];
        GuestMessage {
            id: &self.texts[..id],
            event_type: &self.texts[id..event_type],
            sender: &self.texts[event_type..sender],
            destination: self.to.map(|to| match to {
                To::Sender => GuestDestination::Sender,
                To::User => GuestDestination::User(name),
                To::Room => GuestDestination::Room(name),
                To::Everyone => GuestDestination::Everyone,
            }),
            payload: &self.texts[self.ends[3]..],
            timestamp: self.timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_replaces_all_earlier_content() {
        let mut copy = MessageCopy::default();
        let long = "ä".repeat(KEPT_BYTES_MAX);
        for (payload, destination) in [
            ("{}", None),
            (&*long, Some(GuestDestination::User("bob"))),
            ("null", Some(GuestDestination::Room("lobby"))),
            ("1", Some(GuestDestination::Sender)),
            ("", Some(GuestDestination::Everyone)),
        ] {
            let message = GuestMessage {
                id: "m1",
                event_type: "chat",
                sender: "änn",
                destination,
                payload,
                timestamp: 7,
            };
            copy.set(&message);
            assert_eq!(format!("{:?}", copy.get()), format!("{message:?}"));
        }
        assert!(copy.texts.capacity() <= KEPT_BYTES_MAX);
    }
}
