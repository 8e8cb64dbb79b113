//! The copy of a call, for a version that runs alongside the live one.

use std::sync::Arc;

use signalbox_protocol::ClientInfo;
use tokio::sync::OwnedSemaphorePermit;

use super::compare::VersionAnswer;
use crate::{
    call::{CallKind, ReplayCall, user_of},
    message::{GuestMessage, MessageCopy},
    version::PluginVersion,
};

/// A call that the live version has answered.
pub(super) struct CopiedCall {
    pub(super) asked: CallKind,
    client: Option<Arc<ClientInfo>>,
    message: MessageCopy,
    pub(super) answer: VersionAnswer,
    /// Its share of the memory budget of all copies.
    _room: OwnedSemaphorePermit,
}

impl CopiedCall {
    pub(super) fn new(
        asked: CallKind,
        client: Option<&Arc<ClientInfo>>,
        message: &GuestMessage<'_>,
        answer: VersionAnswer,
        room: OwnedSemaphorePermit,
    ) -> Self {
        let mut copied = MessageCopy::default();
        copied.set(message);
        Self {
            asked,
            client: client.cloned(),
            message: copied,
            answer,
            _room: room,
        }
    }

    pub(super) fn message(&self) -> GuestMessage<'_> {
        self.message.get()
    }

    /// The user whose message it is.
    pub(super) fn user(&self) -> &str {
        user_of(
            self.client.as_ref(),
            &ReplayCall::About(self.asked, self.message()),
        )
    }

    /// Makes the same call to `version`.
    pub(super) async fn ask(&self, version: &Arc<PluginVersion>) -> VersionAnswer {
        ask(self.asked, self.client.as_ref(), &self.message, version).await
    }
}

/// Calls `version` about `message`. An interface that it does not export neither rejects nor changes the message.
pub(crate) async fn ask(
    asked: CallKind,
    client: Option<&Arc<ClientInfo>>,
    message: &MessageCopy,
    version: &Arc<PluginVersion>,
) -> VersionAnswer {
    let event_type = message.get().event_type;
    match asked {
        CallKind::Screen if version.screens() => {
            VersionAnswer::of(&version.screen(client, message.get()).await)
        }
        CallKind::Screen => match validated(client, message, version).await {
            VersionAnswer::Accepted => transformed(client, message, version).await,
            refused => refused,
        },
        CallKind::Validate => validated(client, message, version).await,
        CallKind::Transform => transformed(client, message, version).await,
        CallKind::Handle | CallKind::Respond if version.handles(event_type).is_none() => {
            VersionAnswer::Unhandled
        }
        // The two versions may handle the type in different ways.
        CallKind::Handle | CallKind::Respond if version.responds_to(event_type) => {
            VersionAnswer::of(&version.respond(client, message.get()).await)
        }
        CallKind::Handle | CallKind::Respond => {
            VersionAnswer::of(&version.handle(client, message.get()).await)
        }
    }
}

async fn validated(
    client: Option<&Arc<ClientInfo>>,
    message: &MessageCopy,
    version: &Arc<PluginVersion>,
) -> VersionAnswer {
    if !version.validates() {
        return VersionAnswer::Accepted;
    }
    VersionAnswer::of(&version.validate(client, message.get()).await)
}

async fn transformed(
    client: Option<&Arc<ClientInfo>>,
    message: &MessageCopy,
    version: &Arc<PluginVersion>,
) -> VersionAnswer {
    if !version.transforms() {
        return VersionAnswer::Unchanged;
    }
    VersionAnswer::of(&version.transform(client, message.get()).await)
}
