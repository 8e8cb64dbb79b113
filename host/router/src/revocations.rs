//! Revocations: they keep clients out, and close open connections.

use std::time::SystemTime;

use signalbox_broker::{Denial, Revoked, TokenMark};
use signalbox_protocol::{CloseCode, MemberInfo};

use super::{Connection, LocalTable, Router};

impl Router {
    /// Whether revocations allow that `user` connects with a token of this mark.
    ///
    /// # Errors
    /// Returns why they do not.
    pub fn check_revoked(&self, user: &str, token: TokenMark) -> Result<(), Denial> {
        let revocations = self.broker.revocations();
        revocations.check(user, token, SystemTime::now())
    }

    /// Replaces the mark of the token of `connection`, and closes it if that token has just been revoked. If the token has another
    /// claim `info`, rooms with presence show that one from now on.
    pub fn replace_token(
        &self,
        connection: &Connection,
        token: TokenMark,
        info: Option<MemberInfo>,
    ) {
        connection.set_token(token);
        self.enforce_on(connection);
        for room in connection.set_info(info) {
            self.refresh_member(connection, &room);
        }
    }

    /// Closes `connection` if a revocation came after it was admitted, and before it could be found.
    pub(super) fn enforce_on(&self, connection: &Connection) {
        if let Err(denial) = self.check_revoked(connection.user(), connection.token()) {
            close(connection, denial);
        }
    }
}

impl LocalTable {
    /// Closes the connections that `revoked` is about, and ends the memberships that a revoked token granted.
    pub(super) fn close_revoked(&self, revoked: &Revoked) {
        let close_if_concerned = |connection: &Connection, denial| {
            if revoked.concerns(connection.user(), connection.token()) {
                close(connection, denial);
            }
            connection.revoke_grants(|mark| revoked.concerns(connection.user(), mark));
        };
        let (user, denial) = match revoked {
            Revoked::TokensOf { user, .. } => (user, Denial::Token),
            Revoked::User(user) => (user, Denial::User),
            Revoked::Token(_) => {
                for entry in &self.all {
                    close_if_concerned(entry.value(), Denial::Token);
                }
                return;
            }
        };
        if let Some(entry) = self.users.get(user.as_str()) {
            for connection in &entry.connections {
                close_if_concerned(connection, denial);
            }
        }
    }
}

fn close(connection: &Connection, denial: Denial) {
    let (code, reason) = match denial {
        Denial::Token => (CloseCode::TOKEN_EXPIRED, "the token was revoked"),
        Denial::User => (CloseCode::KICKED, "the user is blocked"),
        Denial::Unknown => return,
    };
    connection.outbox().close(code, reason);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{
        super::table::tests::{connection, table},
        *,
    };

    fn mark(id: &str, issued_at: u64) -> TokenMark {
        TokenMark::new(Some(id), Some(UNIX_EPOCH + Duration::from_secs(issued_at)))
    }

    #[test]
    fn the_connections_that_a_revocation_is_about_are_closed_and_no_others() {
        let old = |user: &str| Revoked::TokensOf {
            user: user.to_owned(),
            issued_before_ms: 5_000,
        };
        for (revoked, closed) in [
            (Revoked::Token("a".to_owned()), [true, false, false]),
            (Revoked::Token("x".to_owned()), [false; 3]),
            (old("ann"), [true, false, false]),
            (old("bob"), [false; 3]),
            (Revoked::User("ann".to_owned()), [true, true, false]),
            (Revoked::User("nobody".to_owned()), [false; 3]),
        ] {
            let table = table();
            let connections = [
                (connection("ann"), mark("a", 4)),
                (connection("ann"), mark("b", 6)),
                (connection("bob"), TokenMark::NONE),
            ];
            for (connection, token) in &connections {
                connection.set_token(*token);
                table.insert(connection.clone());
            }
            table.close_revoked(&revoked);
            let is_closing = connections.map(|(open, _)| open.outbox().is_closing());
            assert_eq!(is_closing, closed, "{revoked:?}");
        }
    }
}
