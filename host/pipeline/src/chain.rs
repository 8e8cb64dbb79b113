//! Chooses the plugins of a set that validate and transform a message, their order, and the number of calls.
//!
//! Nothing comes between the last validator and the first transformer. If they are the same plugin, and it can do both in one
//! call, it gets one call.

use std::sync::Arc;

use futures_util::{FutureExt, future::Either};
use signalbox_plugin_runtime::{CallKind, PluginSet, PluginSlot, PluginVersion, Transformed};
use signalbox_protocol::ClientInfo;

use super::{AccessDenied, Message, Settled, guest, settle, traced, witnessed};

/// A plugin that sees a message, and its place in the chain.
#[derive(Clone, Copy)]
struct ChainLink<'s> {
    place: usize,
    slot: &'s PluginSlot,
    version: &'s Arc<PluginVersion>,
}

/// The next plugin that transforms.
#[derive(Clone, Copy)]
pub(super) struct Transformer<'s> {
    link: ChainLink<'s>,
    /// Whether it has not validated yet, and does so in the same call.
    screening: bool,
}

/// The plugins from a place on that see this message, each with the version that serves its sender.
fn links<'s>(
    plugins: &'s PluginSet,
    from: usize,
    message: &Message<'_>,
) -> impl Iterator<Item = ChainLink<'s>> {
    let slots = plugins.slots().iter().enumerate().skip(from);
    slots.filter_map(move |(place, slot)| {
        let version = slot
            .version_for(message.sender)
            .filter(|version| version.sees(&message.event_type))?;
        Some(ChainLink {
            place,
            slot,
            version,
        })
    })
}

/// Calls the validators in order, and returns the first transformer, which may be a validator that was not called yet. One
/// pass over the plugins is enough: the next validator shows that the one before was not the last.
///
/// # Errors
/// Returns [`AccessDenied`] from the first plugin that refuses the message.
pub(super) async fn validate<'s>(
    plugins: &'s PluginSet,
    client: Option<&Arc<ClientInfo>>,
    message: &Message<'_>,
) -> Result<Option<Transformer<'s>>, AccessDenied> {
    let (mut validator, mut transformer) = (None::<ChainLink>, None::<ChainLink>);
    for link in links(plugins, 0, message) {
        if link.version.transforms() {
            transformer.get_or_insert(link);
        }
        if link.version.validates()
            && let Some(earlier) = validator.replace(link)
        {
            earlier.validate(client, message).await?;
        }
    }
    let screening = match (validator, transformer) {
        (Some(last), Some(first)) => last.place == first.place && last.version.screens(),
        _ => false,
    };
    if !screening && let Some(last) = validator {
        last.validate(client, message).await?;
    }
    Ok(transformer.map(|link| Transformer { link, screening }))
}

impl<'s> ChainLink<'s> {
    fn validate(
        self,
        client: Option<&Arc<ClientInfo>>,
        message: &Message<'_>,
    ) -> impl Future<Output = Result<(), AccessDenied>> {
        let call = traced::call(message, "validate", self.version);
        let verdict = self.version.validate(client, guest(message));
        verdict.map(move |verdict| {
            let verdict = call.ended(verdict);
            witnessed(
                (self.slot, self.version),
                CallKind::Validate,
                client,
                message,
                &verdict,
            );
            match settle(self.slot, verdict) {
                Settled::Answer(()) | Settled::Passed => Ok(()),
                Settled::Stop(refused) => Err(refused),
            }
        })
    }
}

impl<'s> Transformer<'s> {
    /// Calls the plugin.
    pub(super) fn run(
        self,
        client: Option<&Arc<ClientInfo>>,
        message: &Message<'_>,
    ) -> impl Future<Output = Settled<Transformed>> {
        let ChainLink { slot, version, .. } = self.link;
        let (what, asked) = if self.screening {
            ("screen", CallKind::Screen)
        } else {
            ("transform", CallKind::Transform)
        };
        let call = traced::call(message, what, version);
        let verdict = if self.screening {
            Either::Left(version.screen(client, guest(message)))
        } else {
            Either::Right(version.transform(client, guest(message)))
        };
        verdict.map(move |verdict| {
            let verdict = call.ended(verdict);
            witnessed((slot, version), asked, client, message, &verdict);
            settle(slot, verdict)
        })
    }

    /// The next transformer for `message`, which the earlier ones may have rewritten.
    pub(super) fn next(self, plugins: &'s PluginSet, message: &Message<'_>) -> Option<Self> {
        let link =
            links(plugins, self.link.place + 1, message).find(|link| link.version.transforms())?;
        Some(Self {
            link,
            screening: false,
        })
    }
}
