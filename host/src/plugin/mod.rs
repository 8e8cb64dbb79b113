//! The plugin runtime: everything that knows wasmtime.
//!
//! Reading order: [`engine`] is the wasmtime engine and its clock, [`cpu`] the CPU time that a call uses, and [`lane`]
//! where long calls continue; [`bindings`] is the Rust side of the WIT package, and [`editions`] covers its versions;
//! [`host`] is what a guest may call; [`limits`] is what it may use; [`instance`] is one instance, and [`pool`] holds
//! the warm ones; [`version`] makes the calls to a plugin; [`loader`] admits a component; [`registry`] holds what is
//! live and swaps it, and [`door`] and [`handover`] carry a state in memory along; [`rollout`] tries a version first;
//! [`evidence`], [`replay`] and [`recent`] supply what a version on trial is judged by; [`versions`] keeps part of that
//! on disk.
//!
//! Invariants: a guest that failed is thrown away, never the host. A version that was not fully admitted is never
//! called for a message. The live set changes with one atomic store.

mod answer;
mod bindings;
mod cache;
mod compile;
mod contract;
mod cpu;
mod door;
mod editions;
mod engine;
mod evidence;
mod figures;
mod given_up;
mod handover;
mod host;
mod instance;
mod lane;
mod lease;
mod limits;
mod loader;
mod log;
mod message;
mod metadata;
mod output;
mod pool;
mod recent;
mod registry;
mod replay;
mod report;
mod rfc3339;
mod rollout;
mod sample;
mod set;
mod source;
mod store;
mod version;
mod versions;

pub use answer::{Action, Destination, Draft, Rejection, Transformed};
pub use cache::{ComponentHash, hash as component_hash, hex};
pub use compile::Pace;
pub use engine::EngineError;
pub use evidence::Counted;
pub use figures::{LastError, VersionFigures};
pub use instance::CallError;
pub use loader::{Admission, LoadError, Loader, Trial};
pub use metadata::Metadata;
pub use registry::{
    Admitted, CallFailure, Change, ChangeError, PluginView, Push, Registry, Trigger, Unchanged,
    VersionView, Visit,
};
pub use replay::Call;
pub use report::AdmissionReport;
pub use rollout::{Asked, Difference, Rollout, Shadow, Tell};
pub use sample::{SampleCall, sample_calls};
pub use set::{PluginSet, Slot};
pub use source::read;
pub use store::{ENTRY_BYTES, Entry, MemoryStore, PluginStore, RedisStore, StoreError};
pub use version::{GuestDestination, GuestMessage, PluginVersion, Verdict};
