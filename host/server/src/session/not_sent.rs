//! The reasons why a message is not sent, and why a frame is not carried out.

use std::borrow::Cow;

use signalbox_pipeline::AccessDenied;
use signalbox_plugin_runtime::Rejection;
use signalbox_protocol::{ErrorCode, Frame, outbound::ErrorPayload};

/// Why a message was not sent.
#[derive(Debug)]
pub enum NotSent {
    /// The server refused it.
    Refused {
        /// The code, for programs.
        code: ErrorCode,
        /// The message, for people.
        message: Cow<'static, str>,
        /// The plugin that failed.
        plugin: Option<String>,
    },
    /// A plugin rejected it.
    Rejected {
        /// The plugin's name.
        plugin: String,
        /// The plugin's reason.
        rejection: Rejection,
    },
}

impl NotSent {
    pub(super) fn refused(code: ErrorCode, message: &'static str) -> Self {
        Self::Refused {
            code,
            message: Cow::Borrowed(message),
            plugin: None,
        }
    }

    /// Whether the same message may be sent later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.retryable(),
            Self::Rejected { .. } => false,
        }
    }

    /// The `error` frame that answers the frame with this `id`.
    pub(super) fn encode(&self, id: Option<&str>) -> Frame {
        let payload = match self {
            Self::Refused {
                code,
                message,
                plugin,
            } => ErrorPayload {
                plugin: plugin.as_deref(),
                ..ErrorPayload::new(id, *code, message)
            },
            Self::Rejected { plugin, rejection } => ErrorPayload {
                id,
                code: &rejection.code,
                message: &rejection.reason,
                plugin: Some(plugin),
                retryable: false,
            },
        };
        payload.encode()
    }
}

impl From<AccessDenied> for NotSent {
    fn from(denied: AccessDenied) -> Self {
        match denied {
            AccessDenied::Rejected { plugin, rejection } => Self::Rejected { plugin, rejection },
            AccessDenied::Failed { plugin } => Self::Refused {
                code: ErrorCode::PluginFailed,
                message: Cow::Borrowed("a plugin failed to handle the message"),
                plugin: Some(plugin),
            },
        }
    }
}
