//! The copy of a call, for a version that runs alongside the live one.

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

/// The call made to a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `validation.validate`.
    Validate,
    /// `transformation.transform`.
    Transform,
    /// `screening.screen`: both in one call.
    Screen,
    /// `events.handle`.
    Handle,
}

impl Asked {
    /// Its name in reports.
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
    /// Its share of the memory budget of all copies.
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

    /// The user whose message it is.
    pub(super) fn user(&self) -> &str {
        user_of(
            self.client.as_ref(),
            &Call::About(self.asked, self.message()),
        )
    }

    /// Makes the same call to `version`.
    pub(super) async fn ask(&self, version: &Arc<PluginVersion>) -> Told {
        ask(self.asked, self.client.as_ref(), &self.message, version).await
    }
}

/// Calls `version` about `message`. An interface that it does not export neither rejects nor changes the message.
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
