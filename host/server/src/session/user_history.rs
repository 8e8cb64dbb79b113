//! The direct messages of a client's user that it missed.

use std::{sync::Arc, time::Duration};

use signalbox_protocol::{CatchUp, CloseCode, Position};
use signalbox_router::{Connection, HistoryJoin, JoinedHistory};
use tracing::debug;

use super::Services;

/// How long a client may take to read the messages that it missed.
pub(super) const REPLAY_TIME_MAX: Duration = Duration::from_secs(120);

/// Makes the connection reachable. Returns its place in the history of its user, if there is one and the client knows
/// histories: the caller must then call [`Router::go_live`](signalbox_router::Router::go_live). If the client wants the messages
/// after `since`, and the history cannot be read, asks the session to close the connection.
pub(super) async fn connect(
    services: &Services,
    connection: &Arc<Connection>,
    since: Option<Position>,
) -> Option<JoinedHistory> {
    let router = &services.router;
    let Some(retention) = router.user_retention().filter(|_| connection.v1()) else {
        router.connect(connection).await;
        return None;
    };
    let wants_missed = since.is_some();
    let join = HistoryJoin {
        retention,
        catch_up: since.map(CatchUp::Since),
        limits: services.live.load().replay_limits(),
        counted: false,
    };
    match router.connect_with_history(connection, join).await {
        Ok(joined) => joined,
        Err(error) => {
            debug!(%error, "the history of a user was not read");
            if wants_missed {
                let reason = "your missed messages cannot be read now; connect again later";
                router.close(connection, CloseCode::UNAVAILABLE, reason);
            }
            None
        }
    }
}
