//! Carries out the plugins' decision about a message, for clients and backends alike.

use signalbox_pipeline::{AccessDenied, Message, Outcome};
use signalbox_plugin_runtime::{Action, Reply};
use signalbox_protocol::{
    ErrorCode,
    outbound::{AckStatus, Delivery},
};
use signalbox_telemetry::metrics::{
    DropReason,
    events::{MessageRejected, MessageRejectedByPlugin},
};
use tracing::debug;

use super::{actions::Actor, not_sent::NotSent};

/// The result of a message that was not refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The status for its sender.
    pub status: AckStatus,
    /// A plugin's answer to a request, as JSON text.
    pub data: Option<Box<str>>,
}

impl From<AckStatus> for Conclusion {
    fn from(status: AckStatus) -> Self {
        Self { status, data: None }
    }
}

impl Actor<'_> {
    /// Carries out `outcome`. Receivers see `message_id`, if there is one.
    ///
    /// # Errors
    /// Returns [`NotSent`] with the reason if the message was not sent. Plugins may still have sent messages of their own.
    pub(super) async fn conclude(
        &self,
        outcome: Outcome<'_>,
        message_id: Option<&str>,
    ) -> Result<Conclusion, NotSent> {
        match outcome {
            Outcome::Route(message) => Ok(self.deliver(&message, message_id).await?.into()),
            // On the heap, because otherwise every idle connection would keep the memory for it.
            Outcome::Handled { message, actions } => {
                let done = Box::pin(self.carry_out(&message, actions, message_id));
                Ok(done.await?.into())
            }
            Outcome::Replied { message, reply } => {
                let Reply { data, actions } = *reply;
                let status = Box::pin(self.carry_out(&message, actions, message_id)).await?;
                let data = Some(data.into());
                Ok(Conclusion { status, data })
            }
            Outcome::Dropped => {
                self.drop_message(DropReason::Plugin);
                Ok(AckStatus::Handled.into())
            }
            Outcome::Rejected { plugin, rejection } => {
                Err(AccessDenied::Rejected { plugin, rejection }.into())
            }
            Outcome::Failed { plugin } => Err(AccessDenied::Failed { plugin }.into()),
        }
    }

    async fn carry_out(
        &self,
        message: &Message<'_>,
        actions: Vec<Action>,
        message_id: Option<&str>,
    ) -> Result<AckStatus, NotSent> {
        let mut status = Ok(AckStatus::Handled);
        for action in actions {
            match action {
                Action::Deliver => {
                    let delivered = self.deliver(message, message_id).await;
                    status = status.and(delivered);
                }
                other => self.perform(other).await,
            }
        }
        status
    }

    async fn deliver(
        &self,
        message: &Message<'_>,
        message_id: Option<&str>,
    ) -> Result<AckStatus, NotSent> {
        let Some(to) = &message.to else {
            return Err(NotSent::refused(
                ErrorCode::NoReceiver,
                match self.connection {
                    Some(_) => "name a `receiverId` or a `room`: no plugin handles this type",
                    None => "name `receiverId`, `room` or `everyone`: no plugin handles this type",
                },
            ));
        };
        // A plugin returned the message of a backend to its sender.
        if self.is_gone(to) {
            self.drop_message(DropReason::ConnectionGone);
            return Ok(AckStatus::Offline);
        }
        let delivery = Delivery {
            event_type: &message.event_type,
            payload: &message.payload,
            receiver: self.receiver(to),
            sender: message.sender,
            timestamp: message.timestamp,
            room: to.room(),
            message_id,
        };
        match self.send(to, &delivery, self.once).await {
            Ok(status) => {
                if status == AckStatus::Offline {
                    // Its receivers would not have seen an ID that its sender did not ask for.
                    self.services.webhooks.undelivered(&Delivery {
                        message_id: Some(message.id),
                        ..delivery
                    });
                }
                Ok(status)
            }
            Err(error) => {
                debug!(%error, "a message was not sent");
                Err(NotSent::refused(
                    ErrorCode::Unavailable,
                    // The details are in the log.
                    "the message could not be sent to the node of its receiver; try again",
                ))
            }
        }
    }

    /// Counts and traces the result of a message.
    pub(super) fn record(&self, result: Result<AckStatus, &NotSent>) {
        let metrics = &self.services.metrics;
        match result {
            Ok(status) => {
                if let Some(span) = self.trace {
                    span.set("signalbox.status", status.as_str());
                }
            }
            Err(NotSent::Rejected { plugin, rejection }) => {
                MessageRejectedByPlugin {
                    metrics,
                    plugin,
                    code: &rejection.code,
                }
                .emit();
                if let Some(span) = self.trace {
                    span.set("signalbox.rejection", rejection.code.clone());
                }
            }
            Err(NotSent::Refused { code, .. }) => {
                let code = *code;
                MessageRejected { metrics, code }.emit();
                if let Some(span) = self.trace {
                    span.fail(code.as_str());
                }
            }
        }
    }
}
