//! The span of a plugin call for a traced message, and the note that the plugin saw the message.

use std::sync::Arc;

use super::Message;
use crate::{
    plugin::{PluginVersion, Verdict},
    trace::{Span, SpanKind},
};

/// One call; it has a span if its message is traced.
pub(super) struct Traced(Option<Span>);

/// The call that is about to be made for `message`. Create it right before the call.
pub(super) fn call(
    message: &Message<'_>,
    what: &'static str,
    version: &Arc<PluginVersion>,
) -> Traced {
    if let Some(seen) = message.seen {
        seen.note(version);
    }
    Traced(message.trace.map(|message| {
        let name = format!("{what} {}", version.name());
        let span = message.child(name, SpanKind::Internal);
        span.set("signalbox.plugin.name", version.name().to_owned());
        span.set("signalbox.plugin.version", version.label().to_owned());
        span
    }))
}

impl Traced {
    /// Notes the outcome of the call.
    pub(super) fn ended<T>(self, verdict: Verdict<T>) -> Verdict<T> {
        let Self(Some(span)) = self else {
            return verdict;
        };
        match &verdict {
            Ok(Ok(_)) => {}
            Ok(Err(rejection)) => span.set("signalbox.rejection", rejection.code.clone()),
            // The details belong in the log: they may contain output of the guest.
            Err(error) => span.fail(error.kind.as_str()),
        }
        verdict
    }
}
