//! The report of an admission, for programs.

use std::time::Duration;

use serde::Serialize;

use super::loader::{Admission, LoadError};

/// What an admission found out about a component.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum AdmissionReport<'a> {
    /// It may go live.
    Admitted {
        /// The name that it says it has.
        name: Option<&'a str>,
        /// The version that it says it is.
        version: Option<&'a str>,
        /// Its size.
        bytes: usize,
        /// The interfaces that it exports.
        exports: &'a [&'static str],
        /// The event types that it handles.
        event_types: &'a [String],
        /// What it imports, but from WASI.
        imports: Vec<&'a str>,
        /// What it imports from WASI, which gives next to nothing here.
        wasi: Vec<&'a str>,
        /// Time to compile it, or to load what was compiled before.
        compile_ms: f64,
        /// Whether it was compiled before.
        cached: bool,
        /// Time to instantiate it.
        instantiate_ms: f64,
        /// Time of `init`; none where it has none.
        init_ms: Option<f64>,
        /// Time of `self-test`; none where it has none.
        self_test_ms: Option<f64>,
        /// Bytes of its linear memories after that.
        memory_bytes: usize,
    },
    /// It may not.
    Refused {
        /// The step that it failed at: [`LoadError::step`].
        step: &'static str,
        /// In words for its author.
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
