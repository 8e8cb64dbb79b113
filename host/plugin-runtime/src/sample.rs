//! Sample calls that serve nobody, to show a plugin's author what a call of each interface costs.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use signalbox_protocol::{ClientInfo, event_type::Patterns, timestamp::unix_millis};

use super::{
    call::MembershipChange,
    call_error::CallError,
    message::{GuestDestination, GuestMessage},
    response::PluginVerdict,
    version::PluginVersion,
};

/// The number of calls whose median is the time of a warm call.
const WARM_CALLS: usize = 101;

/// A message that most plugins react to.
const EVENT_TYPE: &str = "chat_message";
const PAYLOAD: &str = r#"{"text":"hello"}"#;

/// The result of a sample call of one interface.
#[derive(Clone, Debug)]
pub struct SampleCall {
    /// The function, such as `validation.validate`.
    pub function: &'static str,
    /// The subject of the call: an event type, a user or a room.
    pub about: String,
    /// Time of the first call, for which an instance is started.
    pub cold: Duration,
    /// Median time of the later calls; `None` if none succeeded.
    pub warm: Option<Duration>,
    /// The answer to the first call.
    pub answer: String,
}

/// Calls each interface of `version` with a sample, except those that the host calls on its own.
pub async fn sample_calls(version: &PluginVersion) -> Vec<SampleCall> {
    let client = Arc::new(ClientInfo {
        connection: "sample".to_owned(),
        user: "ann".to_owned(),
        claims: "{}".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        connected_at_ms: unix_millis(SystemTime::now()),
    });
    let client = &client;
    // A handler is called with a type that it handles.
    let trial = &version.admission().trial;
    let (handled, requested) = (first_of(&trial.event_types), first_of(&trial.request_types));
    let (handled, requested) = (handled.as_str(), requested.as_str());
    let mut calls = Vec::new();
    for interface in version.interfaces() {
        calls.extend(match interface {
            "validation" => Some(
                measure(
                    "validation.validate",
                    EVENT_TYPE,
                    version,
                    async |version| say(version.validate(Some(client), message(EVENT_TYPE)).await),
                )
                .await,
            ),
            "transformation" => Some(
                measure(
                    "transformation.transform",
                    EVENT_TYPE,
                    version,
                    async |version| say(version.transform(Some(client), message(EVENT_TYPE)).await),
                )
                .await,
            ),
            "screening" => Some(
                measure("screening.screen", EVENT_TYPE, version, async |version| {
                    say(version.screen(Some(client), message(EVENT_TYPE)).await)
                })
                .await,
            ),
            "events" => Some(
                measure("events.handle", handled, version, async |version| {
                    say(version.handle(Some(client), message(handled)).await)
                })
                .await,
            ),
            "requests" => Some(
                measure("requests.respond", requested, version, async |version| {
                    say(version.respond(Some(client), message(requested)).await)
                })
                .await,
            ),
            "connections" => Some(
                measure(
                    "connections.connected",
                    &client.user,
                    version,
                    async |version| say(version.connected(client).await),
                )
                .await,
            ),
            "rooms" => Some(
                measure("rooms.authorize-join", "lobby", version, async |version| {
                    say(version.authorize_join(client, "lobby").await)
                })
                .await,
            ),
            "membership" => Some(
                measure("membership.joined", "lobby", version, async |version| {
                    let joined = MembershipChange::Joined;
                    let called = version.membership_changed(client, joined, "lobby", 1).await;
                    called.map(|_| "accepted".to_owned())
                })
                .await,
            ),
            _ => None,
        });
    }
    calls
}

/// A type that the first of these patterns matches.
fn first_of(types: &[String]) -> String {
    let types = Patterns::parse(types).unwrap_or_default();
    types.first_match().unwrap_or_else(|| EVENT_TYPE.to_owned())
}

/// Times `call` with a separate pool, which is empty at first.
async fn measure(
    function: &'static str,
    about: &str,
    version: &PluginVersion,
    call: impl AsyncFn(&Arc<PluginVersion>) -> Result<String, CallError>,
) -> SampleCall {
    let version = Arc::new(version.with_empty_pool());
    let began = Instant::now();
    let first = call(&version).await;
    let cold = began.elapsed();
    let mut times = Vec::with_capacity(WARM_CALLS);
    while first.is_ok() && times.len() < WARM_CALLS {
        let began = Instant::now();
        if call(&version).await.is_err() {
            break;
        }
        times.push(began.elapsed());
    }
    times.sort();
    SampleCall {
        function,
        about: about.to_owned(),
        cold,
        warm: times.get(times.len() / 2).copied(),
        answer: first.unwrap_or_else(|error| format!("failed: {error}")),
    }
}

fn say<T: std::fmt::Debug>(verdict: PluginVerdict<T>) -> Result<String, CallError> {
    Ok(match verdict? {
        Ok(_) => "accepted".to_owned(),
        Err(rejection) => format!("rejected: {}: {}", rejection.code, rejection.reason),
    })
}

fn message(event_type: &str) -> GuestMessage<'_> {
    GuestMessage {
        id: "sample-1",
        event_type,
        sender: "ann",
        destination: Some(GuestDestination::User("bob")),
        payload: PAYLOAD,
        timestamp: unix_millis(SystemTime::now()),
    }
}
