//! Why a call of a plugin failed.

use std::time::Duration;

use signalbox_telemetry::metrics::FailureKind;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::{log::clean, output::StderrTail};

/// The most functions that are named in a guest's backtrace.
const FRAMES_MAX: usize = 4;

/// Added if a guest ended itself without a message, which wasmtime reports only as `unreachable`.
const SILENT: &str = "; the plugin said nothing: look for an exception that is not caught (in a component that `signalbox plugin build` \
     has made the log has it), an answer of another type than the interface has, or a function of it that is not exported";

/// The reason why a call failed. The details are for the log; clients do not get them.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct CallError {
    /// For metrics.
    pub kind: FailureKind,
    /// For the plugin's author.
    pub detail: String,
    nature: FailureNature,
}

/// Further facts about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureNature {
    Ordinary,
    /// The guest aborted, as languages do after an uncaught exception or a panic.
    GaveUp,
    /// The kernel refused to seal the image of the guest's memory, which wasmtime makes for the first instance, because
    /// something else is using its pages at the moment (`EBUSY` of `F_ADD_SEALS`, `man 2 fcntl`).
    ImageBusy,
}

impl CallError {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            nature: FailureNature::Ordinary,
        }
    }

    /// Whether the guest's memory image was busy, so that another attempt may succeed.
    pub(super) fn is_image_busy(&self) -> bool {
        self.nature == FailureNature::ImageBusy
    }

    /// Adds the guest's output before the failure: wasmtime does not know the message of a panic.
    pub(super) fn with_stderr_tail(mut self, stderr_tail: &StderrTail) -> Self {
        match stderr_tail.take() {
            Some(words) => {
                self.detail += "; the plugin said: ";
                self.detail += &words;
            }
            None if self.nature == FailureNature::GaveUp => self.detail += SILENT,
            None => {}
        }
        self
    }
}

impl From<wasmtime::Error> for CallError {
    fn from(error: wasmtime::Error) -> Self {
        let detail = match error.downcast_ref::<WasmBacktrace>() {
            Some(backtrace) => trapped(&error, backtrace),
            None => format!("{error:#}"),
        };
        Self {
            nature: nature(&error),
            ..Self::new(classify(&error), detail)
        }
    }
}

fn nature(error: &wasmtime::Error) -> FailureNature {
    if error.downcast_ref() == Some(&Trap::UnreachableCodeReached) {
        return FailureNature::GaveUp;
    }
    let busy = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
    };
    if error.chain().any(busy) {
        FailureNature::ImageBusy
    } else {
        FailureNature::Ordinary
    }
}

/// Describes the failure in one line, with the names of the functions if the component still has them.
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

/// The kind of failure of a wasmtime error.
fn classify(error: &wasmtime::Error) -> FailureKind {
    if error.is::<Stopped>() {
        FailureKind::Deadline
    } else if error.is::<MemoryRefused>()
        || error.is::<TablesRefused>()
        || error.is::<GrowthFailed>()
    {
        FailureKind::Memory
    } else if error.is::<PoolConcurrencyLimitError>() {
        FailureKind::Unavailable
    } else if format!("{error:#}").contains("fuel allocated for hostcalls has been exhausted") {
        // wasmtime does not export the type of this error.
        FailureKind::Output
    } else {
        FailureKind::Trap
    }
}

/// Why a running guest is stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// Its CPU time is used up.
    #[error(
        "the call used more CPU time than allowed ({0:?}, `call_cpu_max` or `init_time_max` of the plugin); look for \
         a loop that does not end"
    )]
    CpuExhausted(Duration),
    /// Its caller went away, or got a deadline error.
    #[error("nobody waits for the call any more")]
    GivenUp,
}

/// The guest asked for more memory than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the plugin requested {wanted} bytes of memory, and may have {allowed} (`memory_max`)")]
pub(super) struct MemoryRefused {
    pub(super) wanted: usize,
    pub(super) allowed: usize,
}

/// The guest asked for larger tables than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the plugin requested tables of {wanted} elements, and may have {allowed}")]
pub(super) struct TablesRefused {
    pub(super) wanted: usize,
    pub(super) allowed: usize,
}

/// The system has no more memory, or the guest asked for more than is addressable.
#[derive(Debug, thiserror::Error)]
#[error("the plugin's memory or table cannot grow: {0}")]
pub(super) struct GrowthFailed(pub(super) String);
