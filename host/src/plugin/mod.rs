//! The plugin runtime: everything that knows wasmtime.
//!
//! Reading order: [`engine`] is the wasmtime engine and its clock, [`cpu`] the CPU time that a call uses, and [`slow_lane`]
//! where long calls continue; [`bindings`] is the Rust side of the WIT package, and [`wit_versions`] covers its versions;
//! [`host`] is what a guest may call; [`limits`] is what it may use; [`instance`] is one instance, and [`pool`] holds
//! the warm ones; [`version`] makes the calls to a plugin; [`loader`] admits a component; [`manager`] holds what is
//! live and swaps it, and [`gate`] and [`handover`] carry a state in memory along; [`rollout`] tries a version first;
//! [`evidence`], [`replay`] and [`call_window`] supply what a version on trial is judged by; [`history`] keeps part of that
//! on disk.
//!
//! Invariants: a guest that failed is thrown away, never the host. A version that was not fully admitted is never
//! called for a message. The live set changes with one atomic store.

mod abandoned;
mod bindings;
mod cache;
mod call_window;
mod compile;
mod cpu;
mod engine;
mod evidence;
mod gate;
mod handover;
mod history;
mod host;
mod instance;
mod lease;
mod limits;
mod loader;
mod log;
mod manager;
mod message;
mod metadata;
mod output;
mod pool;
mod replay;
mod report;
mod response;
mod rfc3339;
mod rollout;
mod sample;
mod set;
mod slow_lane;
mod source;
mod stats;
mod store;
mod version;
mod wit_check;
mod wit_versions;

pub use cache::{ComponentHash, hash as component_hash, hex};
pub use compile::CompilePriority;
pub use engine::EngineError;
pub use evidence::FailureCount;
pub(crate) use history::FLUSH_TIME_MAX;
pub use instance::CallError;
pub use loader::{Admission, LoadError, Loader, TestRun};
pub use manager::{
    AdmittedComponent, CallFailure, Change, ChangeError, PluginManager, PluginSnapshot, PluginView,
    PushOptions, Trigger, Unchanged, VersionView,
};
pub use metadata::Metadata;
pub use replay::ReplayCall;
pub use report::AdmissionReport;
pub use response::{Action, Destination, Draft, Rejection, Transformed};
pub use rollout::{AnswerDifference, CallKind, Rollout, Shadow, ToVersionAnswer};
pub use sample::{SampleCall, sample_calls};
pub use set::{PluginSet, PluginSlot};
pub use source::read;
pub use stats::{LastError, VersionStats};
pub use store::{ENTRY_BYTES, MemoryStore, PluginStore, RedisStore, StoreEntry, StoreError};
pub use version::{GuestDestination, GuestMessage, PluginVerdict, PluginVersion};
