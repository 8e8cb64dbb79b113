//! Carries out the actions of plugins.

use std::{sync::Arc, time::SystemTime};

use signalbox_broker::{AppendKind, AppendOnce, BrokerError, HistoryName, Retention, Target};
use signalbox_plugin_runtime::{Action, Draft};
use signalbox_protocol::{
    ClientInfo, Destination, Frame,
    outbound::{AckStatus, Delivery},
};
use signalbox_router::{Connection, Reach};
use signalbox_telemetry::{
    metrics::{DropReason, events::MessageDropped},
    trace::Trace,
};

use super::{Services, once::OnceMessage, rooms};

/// The party on whose behalf actions are carried out.
#[derive(Clone, Copy)]
pub(super) struct Actor<'a> {
    pub(super) services: &'a Services,
    /// `None` for backends and for connections that have ended: only messages to others have an effect then.
    pub(super) connection: Option<&'a Arc<Connection>>,
    /// The user in whose name messages are sent; empty for the platform.
    pub(super) user: &'a str,
    /// The span of the message, if it is traced.
    pub(super) trace: Trace<'a>,
    /// The client whose changes of rooms are reported to plugins; `None` if they are not reported.
    pub(super) member: Option<&'a Arc<ClientInfo>>,
    /// The message, if it is handled once although its sender may repeat it.
    pub(super) once: Option<&'a OnceMessage>,
}

impl<'a> Actor<'a> {
    /// The user of `connection`, whose claims are in `client`, outside of any message.
    pub(super) fn of(
        services: &'a Services,
        connection: &'a Arc<Connection>,
        client: &'a Arc<ClientInfo>,
    ) -> Self {
        Self {
            services,
            connection: Some(connection),
            user: connection.user(),
            trace: None,
            member: Some(client),
            once: None,
        }
    }

    /// The user of a connection that has ended.
    pub(super) fn gone(services: &'a Services, client: &'a Arc<ClientInfo>) -> Self {
        Self {
            services,
            connection: None,
            user: &client.user,
            trace: None,
            member: Some(client),
            once: None,
        }
    }

    pub(super) async fn perform_all(&self, actions: Vec<Action>) {
        for action in actions {
            self.perform(action).await;
        }
    }

    /// Carries out `action`. [`Action::Deliver`] has no effect here, because it takes a message.
    pub(super) async fn perform(&self, action: Action) {
        match (action, self.connection) {
            (Action::Deliver, Some(_)) => {}
            (Action::Send(draft), _) => self.send_draft(self.user, &draft).await,
            (Action::Announce(draft), _) => self.send_draft("", &draft).await,
            (Action::Join(room), Some(connection)) => {
                if let Some(joined) = rooms::add(self.services, connection, &room).await {
                    self.report(joined, &room).await;
                }
            }
            (Action::Leave(room), Some(connection)) => {
                if let Some(left) = rooms::leave(self.services, connection, &room) {
                    self.report(left, &room).await;
                }
            }
            (Action::Disconnect { code, reason }, Some(connection)) => {
                connection.outbox().close(code, reason);
            }
            (_, None) => self.drop_message(DropReason::ConnectionGone),
        }
    }

    async fn send_draft(&self, sender: &str, draft: &Draft) {
        let Some(to) = &draft.destination else {
            return self.drop_message(DropReason::Offline);
        };
        if self.is_gone(to) {
            return self.drop_message(DropReason::ConnectionGone);
        }
        let delivery = Delivery {
            event_type: &draft.event_type,
            payload: &draft.payload,
            receiver: self.receiver(to),
            sender,
            timestamp: SystemTime::now(),
            room: to.room(),
            message_id: None,
        };
        if self.send(to, &delivery, None).await.is_err() {
            self.drop_message(DropReason::Offline);
        }
    }

    /// Sends `delivery`, which is one of the message `once`, and returns whether it reached anybody, or waits in a history.
    pub(super) async fn send(
        &self,
        to: &Destination<'_>,
        delivery: &Delivery<'_>,
        once: Option<&OnceMessage>,
    ) -> Result<AckStatus, BrokerError> {
        let router = &self.services.router;
        let frame = delivery.encode();
        let target = match to {
            Destination::Sender => {
                let pushed = self
                    .connection
                    .is_some_and(|connection| router.table().push_message(connection, frame));
                return Ok(status(pushed, AckStatus::Offline));
            }
            Destination::User(user) => {
                if let Some(retention) = router.user_retention() {
                    return self
                        .send_kept(HistoryName::User(user), &frame, retention, once)
                        .await;
                }
                Target::User(user)
            }
            Destination::Room(room) => {
                if let Some(retention) = rooms::retention(self.services, room) {
                    return self
                        .send_kept(HistoryName::Room(room), &frame, retention, once)
                        .await;
                }
                Target::Room(room)
            }
            Destination::Everyone => Target::Everyone,
        };
        let reach = router.send(target, &frame, self.trace).await?;
        Ok(status(reach.anybody(), AckStatus::Offline))
    }

    async fn send_kept(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
        once: Option<&OnceMessage>,
    ) -> Result<AckStatus, BrokerError> {
        let router = &self.services.router;
        // On the heap, because otherwise every idle connection would keep the memory for it.
        let reach = match once {
            None => {
                let sent = Box::pin(router.send_kept(name, frame, retention, None, self.trace));
                sent.await?.0
            }
            Some(once) => Box::pin(self.send_kept_once(name, frame, retention, once)).await?,
        };
        Ok(status(reach.anybody(), AckStatus::Kept))
    }

    async fn send_kept_once(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
        once: &OnceMessage,
    ) -> Result<Reach, BrokerError> {
        let id = &once.next_delivery();
        let time = self.services.live.load().limits.once_time;
        let once_here = Some(AppendOnce { id, time });
        let router = &self.services.router;
        let sent = router.send_kept(name, frame, retention, once_here, self.trace);
        let (reach, kind) = sent.await?;
        if let AppendKind::Repetition(Some(first)) = kind {
            once.repeats(&first);
        }
        Ok(reach)
    }

    /// Whether `to` is the sender's connection, and there is none.
    pub(super) fn is_gone(&self, to: &Destination<'_>) -> bool {
        matches!(to, Destination::Sender) && self.connection.is_none()
    }

    /// The user that a delivery to `to` names as its receiver; empty if it names none.
    pub(super) fn receiver<'t>(&'t self, to: &'t Destination<'_>) -> &'t str {
        match to {
            Destination::Sender => self.user,
            Destination::User(user) => user,
            Destination::Room(_) | Destination::Everyone => "",
        }
    }

    /// Counts a message that reached nobody.
    pub(super) fn drop_message(&self, reason: DropReason) {
        let metrics = &self.services.metrics;
        MessageDropped { metrics, reason }.emit();
    }
}

fn status(is_delivered: bool, otherwise: AckStatus) -> AckStatus {
    if is_delivered {
        AckStatus::Delivered
    } else {
        otherwise
    }
}
