//! Why a component does not go live.

use std::path::PathBuf;

use signalbox_protocol::event_type::PatternError;

use super::log::one_line;

/// The most event types and patterns that a plugin may handle: each message is compared with all of them.
pub(super) const EVENT_TYPES_MAX: usize = 256;

/// The longest reason for a refusal, in bytes. Names in a component have no length limit, and they reach operators and
/// the log.
const REASON_BYTES_MAX: usize = 3 << 10;

/// Why a component does not go live.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is over `limits.plugin_file_bytes_max`.
    #[error("the file has {bytes} bytes, the limit is {max} (`limits.plugin_file_bytes_max`)")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: usize,
    },
    /// It is not a component.
    #[error("not a component: {0}")]
    NotAComponent(String),
    /// It takes too long to compile.
    #[error("{0}")]
    CompileTime(String),
    /// It has more parts than an instance may have here.
    #[error("the component exceeds the limits of this host: {0}")]
    TooManyParts(String),
    /// It does not match the WIT package that this host serves.
    #[error("{0}")]
    Mismatch(String),
    /// It does not start, or refuses its configuration.
    #[error("the plugin does not start: {0}")]
    Start(String),
    /// Its self-test fails.
    #[error("self-test failed: {0}")]
    SelfTest(String),
    /// It claims event types that it cannot have.
    #[error("event-types: {0}")]
    EventTypes(#[from] PatternError),
    /// It claims types of requests that it cannot have.
    #[error("request-types: {0}")]
    RequestTypes(PatternError),
    /// It claims a type both as an event and as a request.
    #[error(
        "`{0}` is in `event-types` and in `request-types`: a type has a handler or a responder"
    )]
    TypeOfBoth(String),
    /// It claims more event types than the host compares each message with.
    #[error(
        "event-types and request-types: {0} of them, a plugin may have {EVENT_TYPES_MAX}; use patterns such as `chat.*`"
    )]
    TooManyEventTypes(usize),
    /// The live version's state could not be handed over to it.
    #[error("handover: {0}")]
    Handover(String),
    /// Another plugin already handles the same event types.
    #[error("`{pattern}` is handled by plugin `{other}` already")]
    Conflict {
        /// The pattern.
        pattern: String,
        /// The other plugin.
        other: String,
    },
}

impl LoadError {
    /// The step of admission that failed. In order, the steps are `read`, `compile`, `contract`, `start`,
    /// `event-types`, `self-test`, `conflict`, `handover`.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::TooLarge { .. } => "read",
            Self::NotAComponent(_) | Self::CompileTime(_) | Self::TooManyParts(_) => "compile",
            Self::Mismatch(_) => "contract",
            Self::Start(_) => "start",
            Self::EventTypes(_)
            | Self::RequestTypes(_)
            | Self::TypeOfBoth(_)
            | Self::TooManyEventTypes(_) => "event-types",
            Self::SelfTest(_) => "self-test",
            Self::Conflict { .. } => "conflict",
            Self::Handover(_) => "handover",
        }
    }

    /// Shortens the reason to one line of limited length, whatever the component has put into it.
    pub(super) fn bounded(mut self) -> Self {
        match &mut self {
            Self::NotAComponent(reason)
            | Self::TooManyParts(reason)
            | Self::Mismatch(reason)
            | Self::Start(reason)
            | Self::Handover(reason)
            | Self::SelfTest(reason) => *reason = one_line(reason, REASON_BYTES_MAX),
            Self::Read { .. }
            | Self::CompileTime(_)
            | Self::TooLarge { .. }
            | Self::EventTypes(_)
            | Self::RequestTypes(_)
            | Self::TypeOfBoth(_)
            | Self::TooManyEventTypes(_)
            | Self::Conflict { .. } => {}
        }
        self
    }
}
