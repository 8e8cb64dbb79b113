//! What is copied of a call for a version that runs beside the live one.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::compare::Told;
use crate::{
    plugin::{
        message::MessageCopy,
        replay::{Call, user_of},
        version::{GuestMessage, PluginVersion},
    },
    protocol::ClientInfo,
};

/// What a plugin was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `validation.validate`.
    Validate,
    /// `transformation.transform`.
    Transform,
    /// Both in one.
    Screen,
    /// `events.handle`.
    Handle,
}

impl Asked {
    /// As it stands in reports.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Transform => "transform",
            Self::Screen => "screen",
            Self::Handle => "handle",
        }
    }
}

/// A call that the live version has answered.
pub(super) struct Copied {
    pub(super) asked: Asked,
    client: Option<Arc<ClientInfo>>,
    message: MessageCopy,
    pub(super) told: Told,
    /// Its part of the room that all copies have.
    _room: OwnedSemaphorePermit,
}

impl Copied {
    pub(super) fn new(
        asked: Asked,
        client: Option<&Arc<ClientInfo>>,
        message: &GuestMessage<'_>,
        told: Told,
        room: OwnedSemaphorePermit,
    ) -> Self {
        let mut copied = MessageCopy::default();
        copied.set(message);
        Self {
            asked,
            client: client.cloned(),
            message: copied,
            told,
            _room: room,
        }
    }

    pub(super) fn message(&self) -> GuestMessage<'_> {
        self.message.get()
    }

    /// Whose message it is.
    pub(super) fn user(&self) -> &str {
        user_of(
            self.client.as_ref(),
            &Call::About(self.asked, self.message()),
        )
    }

    /// Asks `version` the same.
    pub(super) async fn ask(&self, version: &Arc<PluginVersion>) -> Told {
        ask(self.asked, self.client.as_ref(), &self.message, version).await
    }
}

/// Asks `version` about `message`. What it does not export it has nothing against.
pub(in crate::plugin) async fn ask(
    asked: Asked,
    client: Option<&Arc<ClientInfo>>,
    message: &MessageCopy,
    version: &Arc<PluginVersion>,
) -> Told {
    let event_type = message.get().event_type;
    match asked {
        Asked::Screen if version.screens() => {
            Told::of(&version.screen(client, message.get()).await)
        }
        Asked::Screen => match validated(client, message, version).await {
            Told::Accepted => transformed(client, message, version).await,
            refused => refused,
        },
        Asked::Validate => validated(client, message, version).await,
        Asked::Transform => transformed(client, message, version).await,
        Asked::Handle if version.handles(event_type).is_some() => {
            Told::of(&version.handle(client, message.get()).await)
        }
        Asked::Handle => Told::Unhandled,
    }
}

async fn validated(
    client: Option<&Arc<ClientInfo>>,
    message: &MessageCopy,
    version: &Arc<PluginVersion>,
) -> Told {
    if !version.validates() {
        return Told::Accepted;
    }
    Told::of(&version.validate(client, message.get()).await)
}

async fn transformed(
    client: Option<&Arc<ClientInfo>>,
    message: &MessageCopy,
    version: &Arc<PluginVersion>,
) -> Told {
    if !version.transforms() {
        return Told::Unchanged;
    }
    Told::of(&version.transform(client, message.get()).await)
}
