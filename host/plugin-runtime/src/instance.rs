//! One instance of a component, and its exports.

use std::{sync::Arc, time::Duration};

use signalbox_telemetry::metrics::FailureKind;
use tokio::time::Instant;
use wasmtime::{
    Store,
    component::{Instance as WasmInstance, InstancePre},
};

use super::{
    bindings::exported::{
        connections, events, handover, lifecycle, membership, requests, rooms, screening,
        transformation,
    },
    call_error::CallError,
    cpu::CpuMeter,
    host::{HostState, VersionContext},
    limits::Budget,
    log::clean,
    message::MessageCopy,
    output::StderrTail,
    slow_lane::run_with_deadline,
    wit_versions::validation,
};

/// Pauses before retrying to start an instance whose memory image the kernel could not seal. The kernel itself waits
/// for 155 ms.
const IMAGE_PAUSES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(800),
];

/// Retries `start` a few times while the kernel cannot seal its image.
async fn while_image_is_busy<T, F>(start: impl Fn() -> F) -> Result<T, InstanceStartError>
where
    F: Future<Output = Result<T, InstanceStartError>>,
{
    for pause in IMAGE_PAUSES {
        match start().await {
            Err(InstanceStartError::Call(error)) if error.is_image_busy() => {
                tokio::time::sleep(pause).await;
            }
            ended => return ended,
        }
    }
    start().await
}

macro_rules! exports {
    ($($name:ident),+) => {
        /// The indices of a component's exports, for each interface that it has.
        #[derive(Clone)]
        pub(super) struct ExportIndices {
            $(pub(super) $name: Option<$name::GuestIndices>,)+
        }

        impl ExportIndices {
            /// Looks the indices up. An interface that lacks a function counts as absent; admission detects the
            /// difference.
            pub(super) fn new(component: &InstancePre<HostState>) -> Self {
                Self { $($name: $name::GuestIndices::new(component).ok(),)+ }
            }

            /// The names of the interfaces that the component has.
            pub(super) fn names(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$name.is_some() {
                    names.push(stringify!($name));
                })+
                names
            }

            fn load(&self, store: &mut Store<HostState>, instance: &WasmInstance) -> Result<Exports, InstanceStartError> {
                Ok(Exports {
                    $($name: match &self.$name {
                        Some(indices) => Some(indices.load(&mut *store, instance).map_err(|error| {
                            InstanceStartError::WrongType { interface: stringify!($name), error }
                        })?),
                        None => None,
                    },)+
                })
            }
        }

        /// An instance's exports. Each is `Some` if the component has the interface.
        pub(super) struct Exports {
            $(pub(super) $name: Option<$name::Guest>,)+
        }

        /// The names of the exported interfaces that the host calls.
        pub(super) const EXPORTED_INTERFACES: &[&str] = &[$(stringify!($name)),+];
    };
}

exports!(
    validation,
    transformation,
    screening,
    events,
    requests,
    connections,
    rooms,
    membership,
    lifecycle,
    handover
);

/// An instance that is ready to be called. A call owns the guest, because it may continue on another thread; the meter
/// and the output stays here in the meantime.
pub(super) struct Instance {
    guest: Box<InstanceGuest>,
    meter: Arc<CpuMeter>,
    stderr_tail: Arc<StderrTail>,
}

/// The state that a call owns.
pub(super) struct InstanceGuest {
    pub(super) store: Store<HostState>,
    pub(super) exports: Exports,
    /// The message that the call is about.
    pub(super) message: MessageCopy,
    /// How long instantiation took.
    pub(super) instantiate: Duration,
    /// How long `init` took; `None` if the plugin has none.
    pub(super) init: Option<Duration>,
}

/// A guest that comes back from a call, with the answer.
pub(super) type Answered<R> = (Box<InstanceGuest>, wasmtime::Result<R>);

/// Why an instance does not start.
pub(super) enum InstanceStartError {
    /// Instantiation or `init` failed.
    Call(CallError),
    /// An interface does not match the host's.
    WrongType {
        interface: &'static str,
        error: wasmtime::Error,
    },
}

impl From<InstanceStartError> for CallError {
    fn from(error: InstanceStartError) -> Self {
        match error {
            InstanceStartError::Call(error) => error,
            InstanceStartError::WrongType { error, .. } => error.into(),
        }
    }
}

/// The future of one call to `$guest`, a `Box<InstanceGuest>` that it owns. It resolves to [`Answered`].
macro_rules! ask {
    ($guest:ident, $interface:ident.$call:ident($($argument:expr),*)) => {
        async move {
            let answer = match &$guest.exports.$interface {
                Some(interface) => interface.$call(&mut $guest.store, $($argument),*).await,
                // Callers check first that the interface exists.
                None => Err(wasmtime::format_err!("the plugin does not export this interface")),
            };
            ($guest, answer)
        }
    };
}
pub(super) use ask;

impl Instance {
    /// Instantiates a component and runs `init`, each within its limits.
    pub(super) async fn start(
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<VersionContext>,
        config: &str,
    ) -> Result<Self, InstanceStartError> {
        let instantiate = || Self::instantiate(component, indices, shared);
        let mut instance = while_image_is_busy(instantiate).await?;
        if instance.guest.exports.lifecycle.is_some() {
            instance = instance
                .init(config)
                .await
                .map_err(InstanceStartError::Call)?;
        }
        HostState::end(&mut instance.guest.store);
        Ok(instance)
    }

    async fn instantiate(
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<VersionContext>,
    ) -> Result<Self, InstanceStartError> {
        let budget = Budget::init(&shared.limits);
        let mut store = HostState::store(shared);
        let (meter, stderr_tail) = (
            store.data().meter().clone(),
            store.data().stderr_tail().clone(),
        );
        HostState::begin(&mut store, None, budget);
        let (began, component) = (Instant::now(), component.clone());
        let instance = async move {
            let instance = component.instantiate_async(&mut store).await?;
            Ok::<_, wasmtime::Error>((store, instance))
        };
        let _ticking = shared.engine.clock().run();
        let (deadline, lane) = (began + budget.wall, shared.engine.slow_lane());
        let instance =
            run_with_deadline(deadline, &meter, lane, &shared.lane, Box::pin(instance)).await;
        let (mut store, instance) = instance
            .and_then(|instance| instance.map_err(CallError::from))
            .map_err(|error| InstanceStartError::Call(error.with_stderr_tail(&stderr_tail)))?;
        let exports = indices.load(&mut store, &instance)?;
        let guest = InstanceGuest {
            store,
            exports,
            message: MessageCopy::default(),
            instantiate: began.elapsed(),
            init: None,
        };
        Ok(Self {
            guest: Box::new(guest),
            meter,
            stderr_tail,
        })
    }

    async fn init(self, config: &str) -> Result<Self, CallError> {
        let budget = Budget::init(&self.guest.store.data().shared().limits);
        let (began, config) = (Instant::now(), config.to_owned());
        let init = |mut guest: Box<InstanceGuest>| ask!(guest, lifecycle.call_init(&config));
        let (mut instance, answer) = self.lifecycle_call(budget, init).await?;
        answer.map_err(|reason| {
            let reason = format!("init refused its configuration: {}", clean(&reason));
            CallError::new(FailureKind::Unavailable, reason)
        })?;
        instance.guest.init = Some(began.elapsed());
        Ok(instance)
    }

    /// The guest, between calls.
    pub(super) fn guest(&mut self) -> &mut InstanceGuest {
        &mut self.guest
    }

    /// Runs `call` within `deadline`. If that fails, the instance is discarded.
    ///
    /// The call is on the heap from the start. Otherwise every idle connection would reserve room for it, in each
    /// function on the call path to here.
    pub(super) fn run<R, F>(
        self,
        shared: &VersionContext,
        deadline: Instant,
        call: impl FnOnce(Box<InstanceGuest>) -> F,
    ) -> impl Future<Output = Result<(Self, R), CallError>>
    where
        R: Send + 'static,
        F: Future<Output = Answered<R>> + Send + 'static,
    {
        let Self {
            guest,
            meter,
            stderr_tail,
        } = self;
        let call = Box::pin(call(guest));
        async move {
            let _ticking = shared.engine.clock().run();
            let lane = shared.engine.slow_lane();
            let ended = run_with_deadline(deadline, &meter, lane, &shared.lane, call).await;
            let answered = ended.and_then(|(guest, answer)| Ok((guest, answer?)));
            let (guest, answer) = answered.map_err(|error| error.with_stderr_tail(&stderr_tail))?;
            let instance = Self {
                guest,
                meter,
                stderr_tail,
            };
            Ok((instance, answer))
        }
    }

    /// Runs a call that serves no message.
    pub(super) async fn lifecycle_call<R, F>(
        mut self,
        budget: Budget,
        call: impl FnOnce(Box<InstanceGuest>) -> F,
    ) -> Result<(Self, R), CallError>
    where
        R: Send + 'static,
        F: Future<Output = Answered<R>> + Send + 'static,
    {
        HostState::begin(&mut self.guest.store, None, budget);
        let shared = self.guest.store.data().shared().clone();
        self.run(&shared, Instant::now() + budget.wall, call).await
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io};

    use super::*;

    fn busy() -> InstanceStartError {
        let error = wasmtime::Error::from(io::Error::from(io::ErrorKind::ResourceBusy));
        InstanceStartError::Call(error.context("cannot add seals to the memfd").into())
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_tried_again_while_the_kernel_is_busy_with_its_image() {
        let tries = Cell::new(0);
        let start = async || {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(busy()) } else { Ok(()) }
        };
        assert!(while_image_is_busy(start).await.is_ok());
        assert_eq!(tries.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_image_is_retried_a_bounded_number_of_times_and_other_errors_are_not() {
        let tries = Cell::new(0);
        let never = async || {
            tries.set(tries.get() + 1);
            Err::<(), _>(busy())
        };
        assert!(while_image_is_busy(never).await.is_err());
        assert_eq!(tries.get(), 1 + IMAGE_PAUSES.len());
        tries.set(0);
        let broken = async || {
            tries.set(tries.get() + 1);
            Err::<(), _>(InstanceStartError::Call(
                wasmtime::format_err!("broken").into(),
            ))
        };
        assert!(while_image_is_busy(broken).await.is_err());
        assert_eq!(tries.get(), 1);
    }
}
