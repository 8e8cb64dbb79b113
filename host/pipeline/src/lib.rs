//! Runs a message through the plugins: validators, then transformers, then the handler or the responder of its type.
//!
//! The pipeline decides and has no side effects: its caller carries out the [`Outcome`]. A failing plugin can therefore
//! never leave half a delivery behind.

mod chain;
mod seen;
mod traced;

use std::{borrow::Cow, sync::Arc, time::SystemTime};

pub use seen::SeenVersions;
use signalbox_config::OnFailure;
use signalbox_plugin_runtime::{
    Action, CallError, CallKind, Draft, GuestDestination, GuestMessage, MembershipChange,
    PluginSet, PluginSlot, PluginVerdict, PluginVersion, Rejection, ReplayCall, Reply,
    ToVersionAnswer, Transformed,
};
use signalbox_protocol::{
    ClientInfo, Destination, EventType, event_type::Closeness, timestamp::unix_millis,
};
use signalbox_telemetry::trace::Trace;

/// A message on its way through the plugins. Borrows from the frame until a plugin rewrites it.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The message ID, unique in the cluster.
    pub id: &'a str,
    /// The event type, which is not built in.
    pub event_type: EventType<'a>,
    /// The user who sent it.
    pub sender: &'a str,
    /// `None` if no receiver is named.
    pub to: Option<Destination<'a>>,
    /// The payload, as JSON text.
    pub payload: Cow<'a, str>,
    /// When the server received it.
    pub timestamp: SystemTime,
    /// The span of its handling, if it is traced.
    pub trace: Trace<'a>,
    /// Collects the versions that see it, if its sender wants them.
    pub seen: Option<&'a SeenVersions>,
}

/// The decision about a message.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Deliver it to its destination.
    Route(Message<'a>),
    /// Carry out the actions of its handler.
    Handled {
        /// The handled message, for [`Action::Deliver`].
        message: Message<'a>,
        /// The actions, in order.
        actions: Vec<Action>,
    },
    /// Carry out the actions of its responder, and give the data to its sender.
    Replied {
        /// The request, for [`Action::Deliver`].
        message: Message<'a>,
        /// The answer. On the heap, because few messages are requests.
        reply: Box<Reply>,
    },
    /// A transformer dropped it.
    Dropped,
    /// A plugin rejected it.
    Rejected {
        /// The plugin's name.
        plugin: String,
        /// The reason.
        rejection: Rejection,
    },
    /// A plugin failed, and `on_failure` is `reject`.
    Failed {
        /// The plugin's name.
        plugin: String,
    },
}

/// The reason why a connection or a membership is not admitted.
#[derive(Debug)]
pub enum AccessDenied {
    /// A plugin rejected it.
    Rejected {
        /// The plugin's name.
        plugin: String,
        /// The reason.
        rejection: Rejection,
    },
    /// A plugin failed, and `on_failure` is `reject`.
    Failed {
        /// The plugin's name.
        plugin: String,
    },
}

/// Runs `message` through `plugins`, using this one set from start to end.
pub async fn run<'a>(
    plugins: &PluginSet,
    client: Option<&Arc<ClientInfo>>,
    mut message: Message<'a>,
) -> Outcome<'a> {
    if let Some(slot) = held_back_by(plugins, &message.event_type) {
        return failed(slot).into();
    }
    let mut next = match chain::validate(plugins, client, &message).await {
        Ok(first) => first,
        Err(refused) => return refused.into(),
    };
    while let Some(transformer) = next {
        match transformer.run(client, &message).await {
            Settled::Answer(Transformed::Unchanged) | Settled::Passed => {}
            Settled::Answer(Transformed::Changed(draft)) => {
                message = rewritten(message, draft);
                if let Some(slot) = held_back_by(plugins, &message.event_type) {
                    return failed(slot).into();
                }
            }
            Settled::Answer(Transformed::Dropped) => return Outcome::Dropped,
            Settled::Stop(refused) => return refused.into(),
        }
        next = transformer.next(plugins, &message);
    }
    let Some((slot, version)) = handler(plugins, message.sender, &message.event_type) else {
        return Outcome::Route(message);
    };
    if version.responds_to(&message.event_type) {
        // On the heap, because otherwise every idle connection would keep the memory for it.
        return Box::pin(respond((slot, version), client, message)).await;
    }
    let call = traced::call(&message, "handle", version);
    let verdict = version.handle(client, guest(&message)).await;
    let verdict = call.ended(verdict);
    witnessed(
        (slot, version),
        CallKind::Handle,
        client,
        &message,
        &verdict,
    );
    match settle(slot, verdict) {
        Settled::Answer(actions) => Outcome::Handled { message, actions },
        Settled::Passed => Outcome::Route(message),
        Settled::Stop(refused) => refused.into(),
    }
}

/// Asks the responder of a request.
async fn respond<'a>(
    (slot, version): (&PluginSlot, &Arc<PluginVersion>),
    client: Option<&Arc<ClientInfo>>,
    message: Message<'a>,
) -> Outcome<'a> {
    let call = traced::call(&message, "respond", version);
    let verdict = version.respond(client, guest(&message)).await;
    let verdict = call.ended(verdict);
    let asked = CallKind::Respond;
    witnessed((slot, version), asked, client, &message, &verdict);
    match settle(slot, verdict) {
        Settled::Answer(reply) => Outcome::Replied {
            message,
            reply: Box::new(reply),
        },
        Settled::Passed => Outcome::Route(message),
        Settled::Stop(refused) => refused.into(),
    }
}

/// Asks every plugin that follows connections to admit this one, and collects their actions.
///
/// # Errors
/// Returns [`AccessDenied`] from the first plugin that does not admit it.
pub async fn connected(
    plugins: &PluginSet,
    client: &Arc<ClientInfo>,
) -> Result<Vec<Action>, AccessDenied> {
    let mut all = Vec::new();
    for slot in plugins.slots() {
        if is_missed(slot) {
            return Err(failed(slot));
        }
        let Some(version) = slot
            .version_for(&client.user)
            .filter(|version| version.follows_connections())
        else {
            continue;
        };
        let verdict = version.connected(client).await;
        if let Err(error) = &verdict {
            version.blame(error, Some(client), &ReplayCall::Connected);
        }
        match settle(slot, verdict) {
            Settled::Answer(actions) => all.extend(actions),
            Settled::Passed => {}
            Settled::Stop(refused) => return Err(refused),
        }
    }
    Ok(all)
}

/// Informs every plugin that follows connections that this one is gone; with `refused_by`, only the plugins that had admitted
/// it before that plugin refused. A failing plugin is skipped.
pub async fn disconnected(
    plugins: &PluginSet,
    client: &Arc<ClientInfo>,
    refused_by: Option<&str>,
    code: u16,
    reason: &str,
) -> Vec<Action> {
    let mut all = Vec::new();
    for version in plugins
        .slots()
        .iter()
        .take_while(|slot| Some(slot.config().name.as_str()) != refused_by)
        .filter_map(|slot| slot.version_for(&client.user))
        .filter(|version| version.follows_connections())
    {
        // The failure was counted and logged where it happened.
        match version.disconnected(client, code, reason).await {
            Ok(actions) => all.extend(actions),
            Err(error) => version.blame(
                &error,
                Some(client),
                &ReplayCall::Disconnected(code, reason),
            ),
        }
    }
    all
}

/// Informs every plugin that follows membership that a connection of `client` joined or left `room`, and collects their
/// actions. `connections` is the number of the user's connections in it on this node after the change. A failing plugin is
/// skipped.
pub async fn membership_changed(
    plugins: &PluginSet,
    client: &Arc<ClientInfo>,
    change: MembershipChange,
    room: &str,
    connections: u32,
) -> Vec<Action> {
    let mut all = Vec::new();
    let versions = plugins.slots().iter();
    for version in versions
        .filter_map(|slot| slot.version_for(&client.user))
        .filter(|version| version.follows_membership())
    {
        let called = version.membership_changed(client, change, room, connections);
        match called.await {
            Ok(actions) => all.extend(actions),
            // The failure was counted and logged where it happened.
            Err(error) => version.blame(
                &error,
                Some(client),
                &ReplayCall::Membership(change, room, connections),
            ),
        }
    }
    all
}

/// Asks every plugin that decides about rooms whether `client` may be in `room`.
///
/// # Errors
/// Returns [`AccessDenied`] from the first plugin that refuses.
pub async fn authorize_join(
    plugins: &PluginSet,
    client: &Arc<ClientInfo>,
    room: &str,
) -> Result<(), AccessDenied> {
    for slot in plugins.slots() {
        if is_missed(slot) {
            return Err(failed(slot));
        }
        let version = slot.version_for(&client.user);
        let Some(version) = version.filter(|version| version.authorizes_rooms()) else {
            continue;
        };
        let verdict = version.authorize_join(client, room).await;
        if let Err(error) = &verdict {
            version.blame(error, Some(client), &ReplayCall::Join(room));
        }
        if let Settled::Stop(refused) = settle(slot, verdict) {
            return Err(refused);
        }
    }
    Ok(())
}

/// Whether a plugin handles messages of `sender` with this type, as events or as requests, or a plugin that is not loaded and has `on_failure`
/// `reject` would have to see them.
pub fn is_handled(plugins: &PluginSet, sender: &str, event_type: &str) -> bool {
    handler(plugins, sender, event_type).is_some() || held_back_by(plugins, event_type).is_some()
}

/// The plugin with the most specific claim to the type; the first one if several are equally specific.
fn handler<'s>(
    plugins: &'s PluginSet,
    sender: &str,
    event_type: &str,
) -> Option<(&'s PluginSlot, &'s Arc<PluginVersion>)> {
    let mut best: Option<(Closeness, &PluginSlot, &Arc<PluginVersion>)> = None;
    for slot in plugins.slots() {
        let Some(version) = slot.version_for(sender) else {
            continue;
        };
        if let Some(closeness) = version.handles(event_type)
            && best.is_none_or(|(closest, ..)| closeness > closest)
        {
            best = Some((closeness, slot, version));
        }
    }
    best.map(|(_, slot, version)| (slot, version))
}

/// Passes the same call to a version on trial next to the live one, if there is one, and records a failure. Does not
/// wait.
fn witnessed<T: ToVersionAnswer>(
    (slot, version): (&PluginSlot, &PluginVersion),
    asked: CallKind,
    client: Option<&Arc<ClientInfo>>,
    message: &Message<'_>,
    verdict: &PluginVerdict<T>,
) {
    if let Some(shadow) = slot.shadow() {
        shadow.offer(asked, client, &guest(message), verdict);
    }
    if let Err(error) = verdict {
        version.blame(error, client, &ReplayCall::About(asked, guest(message)));
    }
}

enum Settled<T> {
    Answer(T),
    /// It failed, and `on_failure` is `pass`.
    Passed,
    Stop(AccessDenied),
}

fn settle<T>(slot: &PluginSlot, verdict: PluginVerdict<T>) -> Settled<T> {
    let plugin = || slot.config().name.clone();
    match verdict {
        Ok(Ok(answer)) => Settled::Answer(answer),
        Ok(Err(rejection)) => Settled::Stop(AccessDenied::Rejected {
            plugin: plugin(),
            rejection,
        }),
        Err(CallError { .. }) if slot.config().on_failure == OnFailure::Pass => Settled::Passed,
        Err(CallError { .. }) => Settled::Stop(failed(slot)),
    }
}

/// Whether no version of the plugin is loaded and `on_failure` is `reject`. Its exports are unknown, so it is treated
/// as a plugin with all guards.
fn is_missed(slot: &PluginSlot) -> bool {
    slot.version().is_none() && slot.config().on_failure == OnFailure::Reject
}

/// The plugin that should see messages of this type but is not loaded.
fn held_back_by<'s>(plugins: &'s PluginSet, event_type: &str) -> Option<&'s PluginSlot> {
    plugins
        .slots()
        .iter()
        .find(|slot| is_missed(slot) && slot.sees(event_type))
}

fn failed(slot: &PluginSlot) -> AccessDenied {
    AccessDenied::Failed {
        plugin: slot.config().name.clone(),
    }
}

impl AccessDenied {
    /// The plugin that refused or failed.
    pub fn plugin(&self) -> &str {
        match self {
            Self::Rejected { plugin, .. } | Self::Failed { plugin } => plugin,
        }
    }
}

impl From<AccessDenied> for Outcome<'_> {
    fn from(refused: AccessDenied) -> Self {
        match refused {
            AccessDenied::Rejected { plugin, rejection } => Outcome::Rejected { plugin, rejection },
            AccessDenied::Failed { plugin } => Outcome::Failed { plugin },
        }
    }
}

fn rewritten<'a>(message: Message<'a>, draft: Draft) -> Message<'a> {
    Message {
        event_type: draft.event_type,
        to: draft.destination,
        payload: draft.payload.into(),
        ..message
    }
}

fn guest<'m>(message: &'m Message<'_>) -> GuestMessage<'m> {
    GuestMessage {
        id: message.id,
        event_type: &message.event_type,
        sender: message.sender,
        destination: message.to.as_ref().map(|to| match to {
            Destination::Sender => GuestDestination::Sender,
            Destination::User(user) => GuestDestination::User(user),
            Destination::Room(room) => GuestDestination::Room(room),
            Destination::Everyone => GuestDestination::Everyone,
        }),
        payload: &message.payload,
        timestamp: unix_millis(message.timestamp),
    }
}
