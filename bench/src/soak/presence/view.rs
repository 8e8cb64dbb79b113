//! The users of a room as one client knows them.

use std::collections::BTreeSet;

use serde_json::Value;

/// The users that a client knows of, from the last list and the changes since.
#[derive(Debug, Default)]
pub(super) struct View {
    /// `None` before the first list.
    users: Option<BTreeSet<String>>,
}

impl View {
    /// Takes the payload of a `presence` frame, and returns the users that left. Changes before a list mean nothing.
    ///
    /// # Errors
    /// Describes a contradiction: somebody came who was there, somebody left who was not, or the total is wrong.
    pub(super) fn take(&mut self, payload: &Value) -> Result<Vec<String>, String> {
        let wrong = |what: &str| Err(format!("{what}: {payload}"));
        let changes = names(&payload["joined"]).zip(names(&payload["left"]));
        let Some((joined, left)) = changes else {
            return wrong("unreadable");
        };
        if payload["members"].is_array() {
            self.users = names(&payload["members"]).map(BTreeSet::from_iter);
        }
        let Some(users) = &mut self.users else {
            // On its way when the client left: nothing is known that it could change.
            return Ok(Vec::new());
        };
        for user in &left {
            if !users.remove(user) {
                return wrong("somebody left who was not there");
            }
        }
        for user in joined {
            if !users.insert(user) {
                return wrong("somebody came who was there");
            }
        }
        if payload["total"] != users.len() {
            return wrong("the total is wrong");
        }
        Ok(left)
    }

    /// Whether these are the users.
    pub(super) fn is(&self, users: &BTreeSet<String>) -> bool {
        self.users.as_ref() == Some(users)
    }

    /// The connection is over.
    pub(super) fn forget(&mut self) {
        self.users = None;
    }

    /// The users, for a report.
    pub(super) fn users(&self) -> Option<&BTreeSet<String>> {
        self.users.as_ref()
    }
}

/// The users of a list; empty if there is none, `None` if it is not a list of users.
fn names(list: &Value) -> Option<Vec<String>> {
    let Some(list) = list.as_array() else {
        return list.is_null().then(Vec::new);
    };
    let name = |user: &Value| {
        let name = user.get("userId").unwrap_or(user);
        name.as_str().map(str::to_owned)
    };
    list.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(name: &str) -> Value {
        json!({"userId": name, "connections": 1})
    }

    #[test]
    fn a_list_and_changes_give_the_users() {
        let mut view = View::default();
        let list = json!({"total": 2, "members": [user("ann"), user("bob")]});
        assert_eq!(view.take(&list), Ok(Vec::new()));
        let change = json!({"total": 2, "joined": [user("eve")], "left": ["bob"]});
        assert_eq!(view.take(&change), Ok(vec!["bob".to_owned()]));
        assert!(view.is(&["ann", "eve"].map(str::to_owned).into()));
        view.forget();
        assert_eq!(view.users(), None);
    }

    #[test]
    fn changes_before_a_list_mean_nothing() {
        let mut view = View::default();
        assert_eq!(
            view.take(&json!({"total": 1, "left": ["bob"]})),
            Ok(Vec::new())
        );
        assert_eq!(view.users(), None);
    }

    #[test]
    fn contradictions_are_found() {
        let list = json!({"total": 1, "members": [user("ann")]});
        for wrong in [
            json!({"total": 1, "left": ["bob"]}),
            json!({"total": 1, "joined": [user("ann")]}),
            json!({"total": 3, "joined": [user("bob")]}),
            json!({"total": 1, "joined": [7]}),
        ] {
            let mut view = View::default();
            assert!(view.take(&list).is_ok() && view.take(&wrong).is_err());
        }
    }
}
