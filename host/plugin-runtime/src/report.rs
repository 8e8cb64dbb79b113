//! The machine-readable report of an admission.

use std::time::Duration;

use serde::Serialize;

use super::{admission::Admission, load_error::LoadError};

/// The result of a component's admission.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum AdmissionReport<'a> {
    /// The component was admitted, and may go live.
    Admitted {
        /// The name that the component declares.
        name: Option<&'a str>,
        /// The version that the component declares.
        version: Option<&'a str>,
        /// Its size in bytes.
        bytes: usize,
        /// The interfaces that it exports.
        exports: &'a [&'static str],
        /// The event types that it handles.
        event_types: &'a [String],
        /// The types of the requests that it responds to.
        request_types: &'a [String],
        /// Its imports, except those from WASI.
        imports: Vec<&'a str>,
        /// Its imports from WASI, which provides next to nothing here.
        wasi: Vec<&'a str>,
        /// Time to compile it, or to load the code that was compiled before, in milliseconds.
        compile_ms: f64,
        /// Whether it was compiled before.
        cached: bool,
        /// Time to instantiate it, in milliseconds.
        instantiate_ms: f64,
        /// Time that `init` took, in milliseconds; `None` if the component has no `init`.
        init_ms: Option<f64>,
        /// Time that `self-test` took, in milliseconds; `None` if the component has no `self-test`.
        self_test_ms: Option<f64>,
        /// Size of its linear memories after that, in bytes.
        memory_bytes: usize,
    },
    /// The component was refused.
    Refused {
        /// The step at which it failed: [`LoadError::step`].
        step: &'static str,
        /// The reason, worded for the plugin's author.
        reason: String,
    },
}

impl<'a> From<&'a Admission> for AdmissionReport<'a> {
    fn from(admission: &'a Admission) -> Self {
        let (wasi, imports) = admission
            .imports
            .iter()
            .map(String::as_str)
            .partition(|name| name.starts_with("wasi:"));
        let trial = &admission.trial;
        Self::Admitted {
            name: admission.metadata.name.as_deref(),
            version: admission.metadata.version.as_deref(),
            bytes: admission.bytes,
            exports: &admission.interfaces,
            event_types: &trial.event_types,
            request_types: &trial.request_types,
            imports,
            wasi,
            compile_ms: ms(admission.compile),
            cached: admission.cached,
            instantiate_ms: ms(trial.instantiate),
            init_ms: trial.init.map(ms),
            self_test_ms: trial.self_test.map(ms),
            memory_bytes: trial.memory,
        }
    }
}

impl From<&LoadError> for AdmissionReport<'_> {
    fn from(error: &LoadError) -> Self {
        Self::Refused {
            step: error.step(),
            reason: error.to_string(),
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
