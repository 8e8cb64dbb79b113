//! Takes the place of `trace` in a build without the feature `otlp`, in which no message is traced.

use std::{convert::Infallible, sync::Arc};

use signalbox_config::TracingConfig;

use crate::metrics::Metrics;

/// A tracer that traces nothing.
#[derive(Clone, Debug, Default)]
pub struct Tracer(());

/// Why nothing can be exported. Has no values, because nothing is exported.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(Infallible);

/// The span of the current work, which is always `None`.
pub type Trace<'a> = Option<&'a Span>;

/// One step of a traced message. Has no values, because no message is traced.
#[derive(Debug)]
pub struct Span(Infallible);

/// A traced step elsewhere. Has no values, because none is read.
#[derive(Clone, Debug)]
pub struct Parent(Infallible);

/// The kind of a span.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are those of OpenTelemetry")]
pub enum SpanKind {
    Client,
    Server,
    Producer,
    Consumer,
    Internal,
}

impl Tracer {
    /// A tracer that traces nothing.
    ///
    /// # Errors
    /// Never returns one.
    pub fn start(_: &TracingConfig, _: &str, _: Arc<Metrics>) -> Result<Self, SetupError> {
        Ok(Self::default())
    }

    /// Always `false`.
    pub fn is_on(&self) -> bool {
        false
    }

    /// Always `None`.
    pub fn begin(&self, _: &'static str) -> Option<Span> {
        None
    }

    /// Always `None`.
    pub fn begin_for(&self, _: Option<Parent>, _: &'static str) -> Option<Span> {
        None
    }

    /// Always `None`.
    pub fn continue_from(&self, _: Parent, _: &'static str) -> Option<Span> {
        None
    }

    /// Returns at once.
    pub async fn stop(&self) {}
}

impl Span {
    /// Never called.
    pub fn child<N>(&self, _: N, _: SpanKind) -> Self {
        match self.0 {}
    }

    /// Never called.
    pub fn set<V>(&self, _: &'static str, _: V) {
        match self.0 {}
    }

    /// Never called.
    pub fn fail<R>(&self, _: R) {
        match self.0 {}
    }

    /// Never called.
    pub fn traceparent(&self) -> String {
        match self.0 {}
    }
}

impl Parent {
    /// Always `None`.
    pub fn parse(_: &str) -> Option<Self> {
        None
    }
}
