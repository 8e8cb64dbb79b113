//! The calls of a version's exports: each borrows an instance, has a budget, and is counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use signalbox_protocol::ClientInfo;
use signalbox_telemetry::metrics::FailureKind;
use tracing::warn;

use super::{
    super::{
        bindings::imported::types as raw,
        call::MembershipChange,
        call_error::CallError,
        host::HostState,
        instance::{Answered, InstanceGuest, ask},
        instances::Lease,
        limits::Budget,
        message::GuestMessage,
        response::{self, Action, IllegalAnswer, PluginVerdict, Reply, Transformed},
    },
    PluginVersion,
};

impl PluginVersion {
    /// `validation.validate`.
    ///
    /// # Errors
    /// Returns [`CallError`] if the plugin gave no legal answer. This applies to all calls below.
    pub fn validate(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<()>> {
        let ask = |mut guest: Box<InstanceGuest>| {
            ask!(guest, validation.call_validate(guest.message.get()))
        };
        self.call_about(client, message, ask)
            .map(|answer| self.verdict(answer?, Ok))
    }

    /// `transformation.transform`.
    pub fn transform(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<Transformed>> {
        let ask = |mut guest: Box<InstanceGuest>| {
            ask!(guest, transformation.call_transform(guest.message.get()))
        };
        self.call_about(client, message, ask)
            .map(|answer| self.verdict(answer?, response::transformed))
    }

    /// `screening.screen`: validates and transforms in one call.
    pub fn screen(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<Transformed>> {
        let ask =
            |mut guest: Box<InstanceGuest>| ask!(guest, screening.call_screen(guest.message.get()));
        self.call_about(client, message, ask)
            .map(|answer| self.verdict(answer?, response::transformed))
    }

    /// `events.handle`.
    pub fn handle(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<Vec<Action>>> {
        let ask =
            |mut guest: Box<InstanceGuest>| ask!(guest, events.call_handle(guest.message.get()));
        self.call_about(client, message, ask).map(|answer| {
            self.verdict(answer?, |actions| {
                response::actions(actions, &self.instances.config.limits)
            })
        })
    }

    /// `requests.respond`.
    pub fn respond(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<Reply>> {
        let ask =
            |mut guest: Box<InstanceGuest>| ask!(guest, requests.call_respond(guest.message.get()));
        self.call_about(client, message, ask).map(|answer| {
            self.verdict(answer?, |reply| {
                response::reply(reply, &self.instances.config.limits)
            })
        })
    }

    /// `connections.connected`.
    pub async fn connected(
        self: &Arc<Self>,
        client: &Arc<ClientInfo>,
    ) -> PluginVerdict<Vec<Action>> {
        let owned = client.clone();
        let answer = self
            .call(Some(client), |mut guest| {
                ask!(guest, connections.call_connected(guest_client(&owned)))
            })
            .await?;
        self.verdict(answer, |actions| {
            response::actions(actions, &self.instances.config.limits)
        })
    }

    /// `connections.disconnected`.
    pub async fn disconnected(
        self: &Arc<Self>,
        client: &Arc<ClientInfo>,
        code: u16,
        reason: &str,
    ) -> Result<Vec<Action>, CallError> {
        let (owned, reason) = (client.clone(), reason.to_owned());
        let raw = self
            .call(Some(client), |mut guest| {
                ask!(
                    guest,
                    connections
                        .call_disconnected(guest_client(&owned), disconnection(code, &reason))
                )
            })
            .await?;
        response::actions(raw, &self.instances.config.limits)
            .map_err(|illegal| self.illegal(&illegal))
    }

    /// `rooms.authorize-join`.
    pub async fn authorize_join(
        self: &Arc<Self>,
        client: &Arc<ClientInfo>,
        room: &str,
    ) -> PluginVerdict<()> {
        let (owned, room) = (client.clone(), room.to_owned());
        let answer = self
            .call(Some(client), |mut guest| {
                ask!(
                    guest,
                    rooms.call_authorize_join(guest_client(&owned), &room)
                )
            })
            .await?;
        self.verdict(answer, Ok)
    }

    /// `membership.joined` or `membership.left`, with the number of the user's connections in `room` on this node after the
    /// change.
    pub async fn membership_changed(
        self: &Arc<Self>,
        client: &Arc<ClientInfo>,
        change: MembershipChange,
        room: &str,
        connections: u32,
    ) -> Result<Vec<Action>, CallError> {
        let (owned, room) = (client.clone(), room.to_owned());
        let raw = match change {
            MembershipChange::Joined => {
                self.call(Some(client), |mut guest| {
                    ask!(
                        guest,
                        membership.call_joined(guest_client(&owned), &room, connections)
                    )
                })
                .await?
            }
            MembershipChange::Left => {
                self.call(Some(client), |mut guest| {
                    ask!(
                        guest,
                        membership.call_left(guest_client(&owned), &room, connections)
                    )
                })
                .await?
            }
        };
        response::actions(raw, &self.instances.config.limits)
            .map_err(|illegal| self.illegal(&illegal))
    }

    /// Like [`Self::call`], but sets the guest's message first.
    fn call_about<R, F>(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
        ask: impl FnOnce(Box<InstanceGuest>) -> F,
    ) -> impl Future<Output = Result<R, CallError>>
    where
        R: Send + 'static,
        F: Future<Output = Answered<R>> + Send + 'static,
    {
        self.call(client, move |mut guest| {
            guest.message.set(&message);
            ask(guest)
        })
    }

    /// Lends an instance to `call`. An instance that failed is thrown away, and a new one is started off the message
    /// path.
    ///
    /// This function and the message calls above are not async functions: an async function stores its arguments twice,
    /// and every idle connection would reserve the space for that. For the same reason, futures that are rarely awaited
    /// are on the heap.
    fn call<R, F>(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        call: impl FnOnce(Box<InstanceGuest>) -> F,
    ) -> impl Future<Output = Result<R, CallError>>
    where
        R: Send + 'static,
        F: Future<Output = Answered<R>> + Send + 'static,
    {
        let started = Instant::now();
        async move {
            let budget = Budget::call(&self.instances.config.limits);
            let taken = match Lease::take(&self.instances) {
                Some(taken) => Ok(taken),
                None => Box::pin(Lease::wait(&self.instances, started + budget.wall)).await,
            };
            let answer = match taken {
                Ok((lease, mut instance)) => {
                    // The call's own time begins here: waiting for an instance, or starting one, is not the guest's
                    // fault.
                    let deadline = lease.ready_since().unwrap_or(started) + budget.wall;
                    HostState::begin(&mut instance.guest().store, client.cloned(), budget);
                    let ended = instance
                        .run(&self.instances.shared, deadline.into(), call)
                        .await;
                    ended.map(|(instance, answer)| {
                        lease.give_back(instance);
                        answer
                    })
                }
                Err(error) => Err(error),
            };
            self.count(started.elapsed(), answer.as_ref().err(), client);
            answer
        }
    }

    fn count(
        &self,
        elapsed: Duration,
        error: Option<&CallError>,
        client: Option<&Arc<ClientInfo>>,
    ) {
        let metrics = &self.instances.shared.metrics;
        metrics.calls.increment();
        metrics.call_time.record(elapsed);
        self.instances.shared.stats.called(elapsed, error);
        if let Some(error) = error {
            metrics.failures(error.kind).increment();
            let (plugin, version, kind) = (self.name(), self.label(), error.kind.as_str());
            let connection = client.map(|client| client.connection.as_str());
            self.instances.shared.log.write_host(|| {
                warn!(
                    plugin,
                    version, kind, connection, "a call of the plugin failed: {error}"
                )
            });
        }
    }

    fn verdict<T, U>(
        &self,
        answer: Result<T, raw::Rejection>,
        check: impl FnOnce(T) -> Result<U, IllegalAnswer>,
    ) -> PluginVerdict<U> {
        match answer {
            Ok(answer) => check(answer).map(Ok),
            Err(raw) => response::rejection(raw).map(|rejection| {
                self.instances.shared.metrics.rejected(&rejection.code);
                Err(rejection)
            }),
        }
        .map_err(|illegal| self.illegal(&illegal))
    }

    /// Counts an illegal answer, which is found after the call was counted.
    fn illegal(&self, illegal: &IllegalAnswer) -> CallError {
        let error = CallError::new(FailureKind::Output, illegal.to_string());
        self.instances
            .shared
            .metrics
            .failures(error.kind)
            .increment();
        self.instances.shared.stats.failed(&error);
        let (plugin, version) = (self.name(), self.label());
        self.instances.shared.log.write_host(|| {
            warn!(
                plugin,
                version,
                kind = "output",
                "the plugin returned an invalid answer: {error}"
            )
        });
        error
    }
}

fn disconnection(code: u16, reason: &str) -> raw::DisconnectionParam<'_> {
    raw::DisconnectionParam { code, reason }
}

fn guest_client(client: &ClientInfo) -> raw::ClientParam<'_> {
    raw::ClientParam {
        connection: &client.connection,
        user: &client.user,
        claims: &client.claims,
        address: &client.address,
        connected_at: client.connected_at_ms,
    }
}
