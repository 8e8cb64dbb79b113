//! The names that clients, backends and plugins write. Each type holds only names that follow its rule.

use std::{borrow::Cow, fmt, ops::Deref};

use super::event_type;

/// Maximum length of a user ID, in bytes.
pub const USER_ID_BYTES_MAX: usize = 255;

/// Maximum length of a room name, in bytes.
pub const ROOM_NAME_BYTES_MAX: usize = 255;

macro_rules! name {
    ($(#[$meta:meta])* $name:ident: $is_valid:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name<'a>(Cow<'a, str>);

        impl<'a> $name<'a> {
            /// Returns `None` if `name` breaks the rule.
            pub fn parse(name: impl Into<Cow<'a, str>>) -> Option<Self> {
                let (name, is_valid): (Cow<'a, str>, fn(&str) -> bool) = (name.into(), $is_valid);
                is_valid(&name).then_some(Self(name))
            }

            /// The same name without a copy.
            pub fn borrowed(&self) -> $name<'_> {
                $name(Cow::Borrowed(&self.0))
            }

            /// The name itself.
            pub fn into_cow(self) -> Cow<'a, str> {
                self.0
            }
        }

        impl Deref for $name<'_> {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl PartialEq<&str> for $name<'_> {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
    };
}

name! {
    /// An event type: 1 to 64 of `A-Z a-z 0-9 _ . : -`. It may be [built in](event_type::is_built_in).
    EventType: event_type::is_valid
}

name! {
    /// A user ID: 1 to 255 bytes.
    UserId: |name| (1..=USER_ID_BYTES_MAX).contains(&name.len())
}

name! {
    /// The name of a room: 1 to 255 bytes.
    RoomName: |name| (1..=ROOM_NAME_BYTES_MAX).contains(&name.len())
}

/// Why a name is no event type that clients, backends or plugins may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSendable {
    /// It is not 1 to 64 of `A-Z a-z 0-9 _ . : -`.
    Malformed,
    /// This type is built in.
    BuiltIn(String),
}

impl<'a> EventType<'a> {
    /// Parses a type that is not built in.
    ///
    /// # Errors
    /// Returns [`NotSendable`] if it is, or if it is malformed.
    pub fn parse_sendable(name: impl Into<Cow<'a, str>>) -> Result<Self, NotSendable> {
        let event_type = Self::parse(name).ok_or(NotSendable::Malformed)?;
        if event_type.is_built_in() {
            return Err(NotSendable::BuiltIn(event_type.0.into_owned()));
        }
        Ok(event_type)
    }

    /// Whether the server itself handles or sends it.
    pub fn is_built_in(&self) -> bool {
        event_type::is_built_in(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_bytes_and_never_empty() {
        let umlauts = "ä".repeat(128);
        for name in ["", "x".repeat(256).as_str(), &umlauts] {
            assert_eq!(UserId::parse(name), None, "{name}");
            assert_eq!(RoomName::parse(name), None, "{name}");
        }
        for name in ["x", " ", "x".repeat(255).as_str(), &umlauts[2..]] {
            assert_eq!(UserId::parse(name).unwrap(), name);
            assert_eq!(RoomName::parse(name).unwrap(), name);
        }
    }

    #[test]
    fn an_event_type_is_sendable_unless_it_is_built_in() {
        assert_eq!(EventType::parse_sendable("chat.new").unwrap(), "chat.new");
        for (name, reason) in [
            ("", NotSendable::Malformed),
            ("a b", NotSendable::Malformed),
            ("join", NotSendable::BuiltIn("join".to_owned())),
            (
                "signalbox.request",
                NotSendable::BuiltIn("signalbox.request".to_owned()),
            ),
        ] {
            assert_eq!(EventType::parse_sendable(name), Err(reason), "{name}");
        }
        assert!(EventType::parse("join").unwrap().is_built_in());
    }
}
