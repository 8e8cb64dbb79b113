//! The results of the steps by which a component becomes a version.

use std::time::Duration;

use wasmtime::component::Component;

use super::{metadata::Metadata, sha256::Sha256};

/// A compiled component that may become a version.
#[derive(Clone)]
pub struct CompiledCandidate {
    /// Its SHA-256.
    pub hash: Sha256,
    /// Its size.
    pub(super) bytes: usize,
    pub(super) metadata: Metadata,
    pub(super) component: Component,
    /// How long it took to compile it, or to load the code that was compiled before.
    pub(super) compile: Duration,
    /// Whether it was compiled before.
    pub(super) cached: bool,
}

/// The results of admission for a version.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Size of the component, in bytes.
    pub bytes: usize,
    /// The component's metadata.
    pub metadata: Metadata,
    /// The interfaces that it exports.
    pub interfaces: Vec<&'static str>,
    /// Its imports, by name.
    pub imports: Vec<String>,
    /// How long it took to compile it, or to load the code that was compiled before.
    pub compile: Duration,
    /// Whether it was compiled before.
    pub cached: bool,
    /// The results of its test instance.
    pub trial: TestRun,
}

/// The results of a test instance, which serves no traffic.
#[derive(Clone, Debug)]
pub struct TestRun {
    /// How long instantiation took.
    pub instantiate: Duration,
    /// How long `init` took; `None` if the plugin has none.
    pub init: Option<Duration>,
    /// How long `self-test` took; `None` if the plugin has none.
    pub self_test: Option<Duration>,
    /// The size of its linear memories after that, in bytes.
    pub memory: usize,
    /// The event types that it handles.
    pub event_types: Vec<String>,
    /// The types of the requests that it responds to.
    pub request_types: Vec<String>,
}
