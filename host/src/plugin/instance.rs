//! One instance of a component, and what it exports.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use tokio::time::{Instant, timeout_at};
use wasmtime::{
    Store,
    component::{Instance as WasmInstance, InstancePre},
};

use super::{
    bindings::exported::{connections, events, lifecycle, rooms, transformation, validation},
    engine::PluginEngine,
    host::{HostState, Shared},
    limits::{Budget, classify},
};
use crate::metrics::FailureKind;

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
}

impl From<wasmtime::Error> for CallError {
    fn from(error: wasmtime::Error) -> Self {
        Self::new(classify(&error), format!("{error:#}"))
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

            fn load(&self, store: &mut Store<HostState>, instance: &WasmInstance) -> wasmtime::Result<Exports> {
                Ok(Exports {
                    $($name: match &self.$name {
                        Some(indices) => Some(indices.load(&mut *store, instance)?),
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
    events,
    connections,
    rooms,
    lifecycle
);

/// An instance that is ready to be called.
pub(super) struct Instance {
    pub(super) store: Store<HostState>,
    pub(super) exports: Exports,
}

impl Instance {
    /// Instantiates a component and runs `init`, within the limits of both.
    pub(super) async fn start(
        engine: &PluginEngine,
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<Shared>,
        config: &str,
    ) -> Result<Self, CallError> {
        let budget = Budget::init(&shared.limits);
        let mut store = HostState::store(engine, shared);
        engine.wind_up();
        HostState::begin(&mut store, None, budget);
        let start = async {
            let instance = component.instantiate_async(&mut store).await?;
            indices.load(&mut store, &instance)
        };
        let exports = within(Instant::now() + budget.wall, start).await??;
        let mut instance = Self { store, exports };
        if let Some(lifecycle) = instance.exports.lifecycle.clone() {
            HostState::begin(&mut instance.store, None, budget);
            let init = lifecycle.call_init(&mut instance.store, config);
            let said = within(Instant::now() + budget.wall, init).await??;
            said.map_err(|reason| {
                CallError::new(
                    FailureKind::Unavailable,
                    format!("init refused its configuration: {reason}"),
                )
            })?;
        }
        HostState::end(&mut instance.store);
        Ok(instance)
    }
}

/// Runs `call` until `deadline`. Most calls are done at the first look, which costs no timer.
pub(super) async fn within<R>(
    deadline: Instant,
    call: impl Future<Output = R>,
) -> Result<R, CallError> {
    let mut call = pin!(call);
    if let Poll::Ready(done) = futures_util::poll!(call.as_mut()) {
        return Ok(done);
    }
    let late = |_| CallError::new(FailureKind::Deadline, "the call took longer than it may");
    timeout_at(deadline, call).await.map_err(late)
}
