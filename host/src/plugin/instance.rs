//! One instance of a component, and what it exports.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use wasmtime::{
    Store, WasmBacktrace,
    component::{Instance as WasmInstance, InstancePre},
};

use super::{
    bindings::exported::{
        connections, events, lifecycle, rooms, screening, transformation, validation,
    },
    cpu::{CpuMeter, within},
    host::{HostState, Shared},
    limits::{Budget, classify},
    log::clean,
};
use crate::metrics::FailureKind;

/// Names of functions that tell where a guest failed.
const FRAMES_MAX: usize = 4;

/// Why a call gave no answer. The detail is for the log: a client is told nothing of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct CallError {
    /// For metrics.
    pub kind: FailureKind,
    /// For the plugin's author.
    pub detail: String,
}

impl CallError {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    /// Adds what the guest wrote before it failed: of a panic, wasmtime knows only that there was one.
    fn with_last_words(self, store: &Store<HostState>) -> Self {
        match store.data().last_words() {
            Some(words) => Self {
                detail: format!("{}; the plugin said: {words}", self.detail),
                ..self
            },
            None => self,
        }
    }
}

impl From<wasmtime::Error> for CallError {
    fn from(error: wasmtime::Error) -> Self {
        let detail = match error.downcast_ref::<WasmBacktrace>() {
            Some(backtrace) => trapped(&error, backtrace),
            None => format!("{error:#}"),
        };
        Self::new(classify(&error), detail)
    }
}

/// In one line: what happened, and in which functions, where the component still has their names.
fn trapped(error: &wasmtime::Error, backtrace: &WasmBacktrace) -> String {
    let names: Vec<_> = backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(FRAMES_MAX)
        .map(|name| format!("`{}`", clean(name)))
        .collect();
    let cause = error.root_cause();
    if names.is_empty() {
        cause.to_string()
    } else {
        format!("{cause}, in {}", names.join(" called by "))
    }
}

macro_rules! exports {
    ($($name:ident),+) => {
        /// Where a component's exports are, for each interface that it has.
        #[derive(Clone)]
        pub(super) struct ExportIndices {
            $(pub(super) $name: Option<$name::GuestIndices>,)+
        }

        impl ExportIndices {
            /// Looks them up. An interface that lacks a function counts as absent; admission tells the difference.
            pub(super) fn new(component: &InstancePre<HostState>) -> Self {
                Self { $($name: $name::GuestIndices::new(component).ok(),)+ }
            }

            /// The names of the interfaces that are there.
            pub(super) fn names(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$name.is_some() {
                    names.push(stringify!($name));
                })+
                names
            }

            fn load(&self, store: &mut Store<HostState>, instance: &WasmInstance) -> Result<Exports, StartError> {
                Ok(Exports {
                    $($name: match &self.$name {
                        Some(indices) => Some(indices.load(&mut *store, instance).map_err(|error| {
                            StartError::WrongType { interface: stringify!($name), error }
                        })?),
                        None => None,
                    },)+
                })
            }
        }

        /// An instance's exports. Each is there where the component has the interface.
        pub(super) struct Exports {
            $(pub(super) $name: Option<$name::Guest>,)+
        }

        /// The names of the exported interfaces that the host calls. `handover` is tolerated and not called yet.
        pub(super) const EXPORTED_INTERFACES: &[&str] = &[$(stringify!($name)),+];
    };
}

exports!(
    validation,
    transformation,
    screening,
    events,
    connections,
    rooms,
    lifecycle
);

/// An instance that is ready to be called.
pub(super) struct Instance {
    pub(super) store: Store<HostState>,
    pub(super) exports: Exports,
    /// The store's own, beside it: the store is lent out while its calls are measured.
    meter: Arc<CpuMeter>,
    /// Time to instantiate it.
    pub(super) instantiate: Duration,
    /// Time of `init`; none where it has none.
    pub(super) init: Option<Duration>,
}

/// Why an instance does not start.
pub(super) enum StartError {
    /// It failed.
    Call(CallError),
    /// An interface is not what the host calls.
    WrongType {
        interface: &'static str,
        error: wasmtime::Error,
    },
}

impl From<StartError> for CallError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Call(error) => error,
            StartError::WrongType { error, .. } => error.into(),
        }
    }
}

impl Instance {
    /// Instantiates a component and runs `init`, within the limits of both.
    pub(super) async fn start(
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<Shared>,
        config: &str,
    ) -> Result<Self, StartError> {
        let mut instance = Self::instantiate(component, indices, shared).await?;
        if instance.exports.lifecycle.is_some() {
            instance.init(config).await.map_err(StartError::Call)?;
        }
        HostState::end(&mut instance.store);
        Ok(instance)
    }

    async fn instantiate(
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<Shared>,
    ) -> Result<Self, StartError> {
        let budget = Budget::init(&shared.limits);
        let mut store = HostState::store(shared);
        let meter = store.data().meter().clone();
        HostState::begin(&mut store, None, budget);
        let began = Instant::now();
        let instance = component.instantiate_async(&mut store);
        let instance = within(began + budget.wall, &meter, instance).await;
        let instance = instance
            .and_then(|instance| instance.map_err(CallError::from))
            .map_err(|error| StartError::Call(error.with_last_words(&store)))?;
        let exports = indices.load(&mut store, &instance)?;
        Ok(Self {
            store,
            exports,
            meter,
            instantiate: began.elapsed(),
            init: None,
        })
    }

    async fn init(&mut self, config: &str) -> Result<(), CallError> {
        let budget = Budget::init(self.store.data().limits());
        let began = Instant::now();
        let init = async |store: &mut Store<HostState>, exports: &Exports| {
            let lifecycle = exports.lifecycle.as_ref().ok_or_else(absent)?;
            lifecycle.call_init(store, config).await
        };
        let said = self.lifecycle_call(budget, init).await?;
        said.map_err(|reason| {
            let reason = format!("init refused its configuration: {}", clean(&reason));
            CallError::new(FailureKind::Unavailable, reason)
        })?;
        self.init = Some(began.elapsed());
        Ok(())
    }

    /// Runs `call` within `deadline`. The instance is poisoned where that fails.
    pub(super) async fn run<R>(
        &mut self,
        deadline: Instant,
        call: impl AsyncFnOnce(&mut Store<HostState>, &Exports) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        let call = call(&mut self.store, &self.exports);
        Ok(within(deadline, &self.meter, call).await??)
    }

    /// Runs a call that serves no message, and adds what the guest said where it fails.
    pub(super) async fn lifecycle_call<R>(
        &mut self,
        budget: Budget,
        call: impl AsyncFnOnce(&mut Store<HostState>, &Exports) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        HostState::begin(&mut self.store, None, budget);
        let result = self.run(Instant::now() + budget.wall, call).await;
        result.map_err(|error| error.with_last_words(&self.store))
    }
}

/// Callers ask first whether the interface is there.
pub(super) fn absent() -> wasmtime::Error {
    wasmtime::format_err!("the plugin does not export this interface")
}
