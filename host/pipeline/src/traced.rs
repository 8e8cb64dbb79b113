//! The span of a plugin call for a traced message, and the note that the plugin saw the message.

use std::sync::Arc;

use signalbox_plugin_runtime::{PluginVerdict, PluginVersion};
use signalbox_telemetry::trace::{Span, SpanKind};

use super::Message;

/// One call; it has a span if its message is traced.
pub(super) struct TracedCall(Option<Span>);

/// The call that is about to be made for `message`. Create it right before the call.
pub(super) fn call(
    message: &Message<'_>,
    what: &'static str,
    version: &Arc<PluginVersion>,
) -> TracedCall {
    if let Some(seen) = message.seen {
        seen.note(version);
    }
    TracedCall(message.trace.map(|message| {
        let name = format!("{what} {}", version.name());
        let span = message.child(name, SpanKind::Internal);
        span.set("signalbox.plugin.name", version.name().to_owned());
        span.set("signalbox.plugin.version", version.label().to_owned());
        span
    }))
}

impl TracedCall {
    /// Notes the outcome of the call.
    pub(super) fn ended<T>(self, verdict: PluginVerdict<T>) -> PluginVerdict<T> {
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
