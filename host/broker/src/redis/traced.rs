//! A traced message on a server's channel: it carries the context of its trace.
//!
//! It is a [line](super::line) before the message, which is sent only to nodes whose lease announces that they remove it.

use signalbox_telemetry::trace::{Parent, Span};

use super::line::LineKind;

/// A text, taken apart.
#[derive(Debug)]
pub(super) struct TracedText<'a> {
    /// The span that published it; `None` if it is malformed.
    pub(super) parent: Option<Parent>,
    /// The message itself.
    pub(super) message: &'a str,
}

/// The prefix of a message that `span` publishes: the `traceparent` of W3C's Trace Context.
pub(super) fn line(span: &Span) -> String {
    LineKind::TRACED.write(|line| line.push_str(&span.traceparent()))
}

/// Takes a text with a [line](line()) apart; `None` if it has none.
pub(super) fn read(text: &str) -> Option<TracedText<'_>> {
    let (parent, message) = LineKind::TRACED.split(text)?;
    Some(TracedText {
        parent: Parent::parse(parent),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let text = LineKind::TRACED.write(|line| line.push_str(parent)) + message;
            let traced = read(&text).expect("it is traced");
            assert_eq!((traced.message, traced.parent.is_some()), (message, is_one));
        }
        assert!(read(message).is_none());
    }
}
