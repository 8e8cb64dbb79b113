//! Carries out the actions of plugins.

use std::{sync::Arc, time::SystemTime};

use signalbox_broker::Target;
use signalbox_config::Limits;
use signalbox_plugin_runtime::{Action, Draft};
use signalbox_protocol::{
    ClientInfo, Destination,
    outbound::{self, Delivery},
};
use signalbox_router::Connection;
use signalbox_telemetry::{
    metrics::{DropReason, events::MessageDropped},
    trace::Trace,
};

use super::Services;

/// Carries out the plugins' actions for a new connection.
pub(super) async fn perform_for_connection(
    services: &Services,
    connection: &Arc<Connection>,
    actions: Vec<Action>,
) {
    let limits = services.live.load().limits.clone();
    for action in actions {
        perform(services, connection, action, &limits, None).await;
    }
}

/// Carries out the plugins' actions for a closed connection.
pub(super) async fn perform_after(services: &Services, client: &ClientInfo, actions: Vec<Action>) {
    for action in actions {
        perform_without_connection(services, &client.user, action, None).await;
    }
}

/// Carries out an action of a plugin without a connection, in the name of `sender`. Only messages to others have an
/// effect.
pub(super) async fn perform_without_connection(
    services: &Services,
    sender: &str,
    action: Action,
    trace: Trace<'_>,
) {
    match action {
        Action::Send(draft) if !is_to_sender(&draft) => {
            send_draft(services, None, sender, &draft, trace).await
        }
        Action::Announce(draft) if !is_to_sender(&draft) => {
            send_draft(services, None, "", &draft, trace).await
        }
        _ => connection_gone(services),
    }
}

/// Counts an action that needs a connection when there is none.
pub(super) fn connection_gone(services: &Services) {
    dropped(services, DropReason::ConnectionGone);
}

/// Counts a message that reached nobody.
pub(super) fn dropped(services: &Services, reason: DropReason) {
    let metrics = &services.metrics;
    MessageDropped { metrics, reason }.emit();
}

fn is_to_sender(draft: &Draft) -> bool {
    matches!(draft.destination, Some(Destination::Sender))
}

pub(super) async fn perform(
    services: &Services,
    connection: &Arc<Connection>,
    action: Action,
    limits: &Limits,
    trace: Trace<'_>,
) {
    match action {
        // No message is handled here; the caller delivers if there is one.
        Action::Deliver => {}
        Action::Send(draft) => {
            send_draft(services, Some(connection), connection.user(), &draft, trace).await
        }
        Action::Announce(draft) => send_draft(services, Some(connection), "", &draft, trace).await,
        Action::Join(room) => {
            join(services, connection, &room, limits).await;
        }
        Action::Leave(room) => leave(services, connection, &room),
        Action::Disconnect { code, reason } => connection.outbox().close(code, reason),
    }
}

async fn send_draft(
    services: &Services,
    connection: Option<&Arc<Connection>>,
    sender: &str,
    draft: &Draft,
    trace: Trace<'_>,
) {
    let Some(to) = &draft.destination else {
        dropped(services, DropReason::Offline);
        return;
    };
    let user = connection.map_or("", |connection| connection.user());
    let delivery = Delivery {
        event_type: &draft.event_type,
        payload: &draft.payload,
        receiver: receiver(to, user),
        sender,
        timestamp: SystemTime::now(),
        room: room(to),
        message_id: None,
    };
    if send(services, connection, to, &delivery, trace)
        .await
        .is_err()
    {
        dropped(services, DropReason::Offline);
    }
}

/// Sends `delivery`, and returns whether it reached anybody.
pub(super) async fn send(
    services: &Services,
    connection: Option<&Arc<Connection>>,
    to: &Destination<'_>,
    delivery: &Delivery<'_>,
    trace: Trace<'_>,
) -> Result<bool, signalbox_broker::BrokerError> {
    let frame = delivery.encode();
    let target = match to {
        Destination::Sender => {
            let table = services.router.table();
            return Ok(connection.is_some_and(|connection| table.push_message(connection, frame)));
        }
        Destination::User(user) => Target::User(user),
        Destination::Room(room) => Target::Room(room),
        Destination::Everyone => Target::Everyone,
    };
    services
        .router
        .send(target, &frame, trace)
        .await
        .map(signalbox_router::Reach::anybody)
}

/// Returns `false` if the connection has reached a limit on its rooms.
pub(super) async fn join(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
    limits: &Limits,
) -> bool {
    if !connection.is_member(room) && !has_room_for(connection, room, limits) {
        return false;
    }
    if services.router.join(connection, room).await && connection.v1() {
        services
            .router
            .table()
            .push(connection, outbound::joined(room));
    }
    true
}

/// Whether the limits allow the connection to join another room with this name.
fn has_room_for(connection: &Connection, room: &str, limits: &Limits) -> bool {
    connection.room_count() < limits.rooms_per_connection_max
        && connection.room_name_bytes() + room.len() <= limits.room_name_bytes_max
}

pub(super) fn leave(services: &Services, connection: &Arc<Connection>, room: &str) {
    if services.router.leave(connection, room) && connection.v1() {
        services
            .router
            .table()
            .push(connection, outbound::left(room));
    }
}

pub(super) fn receiver<'t>(to: &'t Destination<'_>, sender: &'t str) -> &'t str {
    match to {
        Destination::Sender => sender,
        Destination::User(user) => user,
        Destination::Room(_) | Destination::Everyone => "",
    }
}

pub(super) fn room<'t>(to: &'t Destination<'_>) -> Option<&'t str> {
    match to {
        Destination::Room(room) => Some(room),
        _ => None,
    }
}
