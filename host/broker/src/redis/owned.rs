//! Everything that a server writes in Redis about itself, by name.

use std::collections::HashSet;

use super::keys::RouteName;
use crate::MemberReport;

/// The name of a route, or of a member of a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum OwnedName {
    User(Box<str>),
    Room(Box<str>),
    /// A user in a room with presence.
    Member {
        room: Box<str>,
        user: Box<str>,
    },
}

/// The state of a name that this server holds.
#[derive(Clone, Debug)]
pub(super) enum HeldName {
    Route,
    Member(MemberReport),
}

/// Names to look up. Routes come first: messages depend on them.
#[derive(Debug, Default)]
pub(super) struct MarkedNames {
    routes: HashSet<OwnedName>,
    members: HashSet<OwnedName>,
}

impl OwnedName {
    pub(super) fn member(room: &str, user: &str) -> Self {
        Self::Member {
            room: room.into(),
            user: user.into(),
        }
    }

    pub(super) fn is_member(&self) -> bool {
        self.room_of_member().is_some()
    }

    /// The room, if it is a member of one.
    pub(super) fn room_of_member(&self) -> Option<&str> {
        match self {
            Self::Member { room, .. } => Some(room),
            Self::User(_) | Self::Room(_) => None,
        }
    }
}

impl From<RouteName<'_>> for OwnedName {
    fn from(name: RouteName<'_>) -> Self {
        match name {
            RouteName::User(user) => Self::User(user.into()),
            RouteName::Room(room) => Self::Room(room.into()),
        }
    }
}

impl MarkedNames {
    pub(super) fn mark(&mut self, name: OwnedName) {
        if name.is_member() {
            self.members.insert(name);
        } else {
            self.routes.insert(name);
        }
    }

    /// Takes at most `max` of them out.
    pub(super) fn take(&mut self, max: usize) -> Vec<OwnedName> {
        let all = self.routes.iter().chain(&self.members);
        let taken: Vec<OwnedName> = all.take(max).cloned().collect();
        for name in &taken {
            self.routes.remove(name);
            self.members.remove(name);
        }
        taken
    }

    pub(super) fn contains(&self, name: &OwnedName) -> bool {
        self.routes.contains(name) || self.members.contains(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.members.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.members.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_taken_before_members() {
        let mut marked = MarkedNames::default();
        for number in 0..10 {
            marked.mark(OwnedName::member("r", &number.to_string()));
        }
        let route = OwnedName::Room("r".into());
        marked.mark(route.clone());
        marked.mark(route.clone());
        assert!(marked.contains(&route));
        let taken = marked.take(3);
        assert_eq!((&taken[0], taken.len()), (&route, 3));
        assert_eq!(marked.take(usize::MAX).len(), 8);
        assert!(marked.is_empty());
    }
}
