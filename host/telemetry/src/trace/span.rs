//! One step of a traced message.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry::{
    Context, KeyValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::Span as SdkSpan};

use super::On;

/// The span of the current work; `None` for a message that is not traced.
pub type Trace<'a> = Option<&'a Span>;

/// One step of a traced message. It ends, and is exported, when it is dropped.
#[derive(Debug)]
pub struct Span(Box<Inner>);

#[derive(Debug)]
struct Inner {
    on: Arc<On>,
    context: SpanContext,
    span: Mutex<SdkSpan>,
}

impl Span {
    pub(super) fn new(on: Arc<On>, span: SdkSpan) -> Self {
        Self(Box::new(Inner {
            on,
            context: span.span_context().clone(),
            span: Mutex::new(span),
        }))
    }

    /// A child step of this one.
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        let parent = Context::new().with_remote_span_context(self.0.context.clone());
        self.0.on.span(name.into(), kind, &parent)
    }

    /// Sets an attribute.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.span().set_attribute(KeyValue::new(key, value));
    }

    /// Marks this step as failed.
    pub fn fail(&self, reason: impl Into<Cow<'static, str>>) {
        self.span().set_status(Status::error(reason));
    }

    /// This step as the parent of a step elsewhere, in the format of W3C Trace Context: 55 characters.
    pub fn traceparent(&self) -> String {
        let context = &self.0.context;
        let (trace, span) = (context.trace_id(), context.span_id());
        format!("00-{trace}-{span}-01")
    }

    fn span(&self) -> MutexGuard<'_, SdkSpan> {
        self.0.span.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A traced step elsewhere, as the parent of spans here.
#[derive(Clone, Debug)]
pub struct Parent(SpanContext);

impl Parent {
    /// Parses a `traceparent` of W3C Trace Context; `None` if it is invalid or not sampled.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let context = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &Header(traceparent));
        let context = context.span().span_context().clone();
        (context.is_valid() && context.is_sampled()).then_some(Self(context))
    }

    pub(super) fn context(self) -> Context {
        Context::new().with_remote_span_context(self.0)
    }
}

/// The only header that is read.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_sampled_trace_is_continued() {
        let Parent(context) = Parent::parse(PARENT).expect("it is one");
        assert_eq!(context.trace_id().to_string(), PARENT[3..35]);
        assert_eq!(context.span_id().to_string(), PARENT[36..52]);
        assert!(context.is_remote());
    }

    #[test]
    fn an_unsampled_or_malformed_trace_is_not_continued() {
        let zeros = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let unsampled = PARENT.replace("-01", "-00");
        for text in [
            "",
            "00",
            &unsampled,
            &zeros,
            &PARENT[..40],
            &PARENT.replace("00-", "ff-"),
        ] {
            assert!(Parent::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_ignored(text in "\\PC*") {
            let _ = Parent::parse(&text);
        }
    }
}
