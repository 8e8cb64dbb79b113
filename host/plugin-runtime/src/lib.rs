//! The plugin runtime: everything that knows wasmtime.
//!
//! Reading order: [`engine`] is the wasmtime engine and its clock, [`cpu`] the CPU time that a call uses, and [`slow_lane`]
//! where long calls continue; [`bindings`] is the Rust side of the WIT package, and [`wit_versions`] covers its versions;
//! [`host`] is what a guest may call, on [`store`] and [`room_state`]; [`limits`] is what it may use; [`instance`] is one instance, and [`pool`] holds
//! the warm ones; [`version`] makes the calls to a plugin; [`loader`] admits a component; [`set`] is the plugins that
//! handle a message; [`gate`] and [`handover`] carry the memory of an instance to the next version; [`rollout`] tries a
//! version first; [`evidence`], [`replay`] and [`call_window`] count the calls that a version on trial is judged by.
//!
//! Invariants: a guest that failed is discarded, and the host goes on. A version that was not fully admitted is never
//! called for a message.

mod abandoned;
mod admission;
mod bindings;
mod cache;
mod call;
mod call_error;
mod call_window;
mod clock;
mod compile;
mod cpu;
mod engine;
mod evidence;
mod gate;
pub mod handover;
mod host;
mod instance;
mod instances;
mod limits;
mod load_error;
mod loader;
mod log;
mod message;
mod metadata;
mod output;
mod pool;
mod replay;
mod report;
mod response;
pub mod rfc3339;
mod rollout;
mod room_state;
mod sample;
pub mod set;
mod sha256;
mod slow_lane;
pub mod source;
mod stats;
mod store;
mod version;
mod wit_check;
mod wit_versions;

pub use admission::{Admission, CompiledCandidate, TestRun};
pub use cache::{CacheError, private_folder};
pub use call::{CallKind, MembershipChange, ReplayCall};
pub use call_error::CallError;
pub use call_window::RecentCalls;
pub use compile::CompilePriority;
pub use engine::EngineError;
pub use evidence::{EvidenceSummary, FailureCount};
pub use gate::Gate;
pub use load_error::LoadError;
pub use loader::Loader;
pub use message::{GuestDestination, GuestMessage};
pub use metadata::Metadata;
pub use replay::{Replays, start as start_replays};
pub use report::AdmissionReport;
pub use response::{Action, Draft, PluginVerdict, Rejection, Reply, Transformed};
pub use rollout::{AnswerDifference, Rollout, Shadow, ShadowFindings, ToVersionAnswer};
pub use room_state::{RoomMember, RoomMessage, RoomState, RoomStateError};
pub use sample::{SampleCall, sample_calls};
pub use set::{PluginSet, PluginSlot};
pub use sha256::{NotADigest, Sha256, hex};
pub use stats::{LastError, VersionStats, quantile_ms};
#[cfg(feature = "redis")]
pub use store::RedisStore;
pub use store::{ENTRY_BYTES, MemoryStore, PluginStore, StoreEntry, StoreError};
pub use version::PluginVersion;
