//! A traced message on a server's channel: it carries the context of its trace.
//!
//! Clients get a message as the bytes that were published, so the trace cannot be a field of it. It is a separate line before
//! them, with the same beginning as all texts between nodes, and the other node removes it. It is sent only to nodes whose
//! lease announces that they do so.

use signalbox_telemetry::trace::{Parent, Span};

/// The beginning of such a text; the `traceparent` of W3C's Trace Context follows.
const BEGIN: &str = r#"{"type":"signalbox.traced","payload":""#;

/// Separates the `traceparent` from the message.
const END: &str = "\"}\n";

/// A text, taken apart.
#[derive(Debug)]
pub(super) struct TracedText<'a> {
    /// The span that published it; `None` if it is malformed.
    pub(super) parent: Option<Parent>,
    /// The message itself.
    pub(super) message: &'a str,
}

/// The prefix of a message that `span` publishes.
pub(super) fn line(span: &Span) -> String {
    [BEGIN, &span.traceparent(), END].concat()
}

/// Takes a text with a [line](line()) apart; `None` if it has none.
pub(super) fn read(text: &str) -> Option<TracedText<'_>> {
    let (parent, message) = text.strip_prefix(BEGIN)?.split_once(END)?;
    Some(TracedText {
        parent: Parent::parse(parent),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::control, *};

    #[test]
    fn a_message_comes_out_as_it_went_in_and_a_trace_that_is_none_costs_nothing() {
        let message = "{\"type\":\"chat\",\"payload\":\"a\\\"}\\n\"}";
        for (parent, is_one) in [
            (
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                true,
            ),
            ("01", false),
        ] {
            let text = format!("{BEGIN}{parent}{END}{message}");
            let traced = read(&text).expect("it is traced");
            assert_eq!((traced.message, traced.parent.is_some()), (message, is_one));
        }
        assert!(read(message).is_none());
    }

    #[test]
    fn it_begins_as_nothing_does_that_clients_get() {
        assert!(BEGIN.starts_with(control::START));
    }
}
