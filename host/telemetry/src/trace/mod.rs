//! Traces: the path of some messages through plugins and nodes, exported to an OpenTelemetry collector.
//!
//! A [`Tracer`] picks messages when they arrive. A message that is not picked costs one comparison; a message that is
//! picked has a [`Span`], which is passed by reference to everything that handles the message, as a [`Trace`]. Nothing
//! here is global: each node has its own tracer, and spans go to the collector through a bounded queue ([`export`]).
//!
//! A span never contains a payload or a user's name.
//!
//! This module is a leaf.

mod export;
mod sampling;
mod span;

use std::{borrow::Cow, sync::Arc};

use export::Export;
pub use export::SetupError;
pub use opentelemetry::trace::SpanKind;
use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    trace::{SpanBuilder, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use sampling::Sampling;
use signalbox_config::TracingConfig;
pub use span::{Parent, Span, Trace};

use crate::metrics::Metrics;

/// The tracer of one node. Clones share it; the default one traces nothing.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    tracer: SdkTracer,
    sampling: Sampling,
    export: Export,
}

impl Tracer {
    /// A tracer for the server `node`, which begins to export. Must be called in a Tokio runtime. In addition to
    /// `config`, the OpenTelemetry variables set the name of the service (`OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`) and the connection to the collector (`OTEL_EXPORTER_OTLP_HEADERS`,
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`).
    ///
    /// # Errors
    /// Returns [`SetupError`] if those contradict each other, or there are no certificates to verify the collector's.
    pub fn start(
        config: &TracingConfig,
        node: &str,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        let resource = resource(node);
        let (queue, export) = export::start(&config.otlp_endpoint, &resource, metrics)?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let scope =
            InstrumentationScope::builder("signalbox").with_version(env!("CARGO_PKG_VERSION"));
        Ok(Self(Some(Arc::new(On {
            tracer: provider.tracer_with_scope(scope.build()),
            sampling: Sampling::new(config.sample_ratio, config.traces_per_second),
            export,
        }))))
    }

    /// Whether anything is traced at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The first span of a new trace; `None` if the message is not picked.
    pub fn begin(&self, name: &'static str) -> Option<Span> {
        let on = self.0.as_ref()?;
        on.sampling
            .picks()
            .then(|| on.span(name.into(), SpanKind::Server, &Context::new()))
    }

    /// The span of an external request, in the trace that the caller began. It counts towards the limit of traces that
    /// begin here, so that callers cannot cause more. Without a `parent`, it is that of [`Tracer::begin`].
    pub fn begin_for(&self, parent: Option<Parent>, name: &'static str) -> Option<Span> {
        let on = self.0.as_ref()?;
        let Some(parent) = parent else {
            return self.begin(name);
        };
        on.sampling
            .has_room()
            .then(|| on.span(name.into(), SpanKind::Server, &parent.context()))
    }

    /// The span of a message from another node, in the trace of that node.
    pub fn continue_from(&self, parent: Parent, name: &'static str) -> Option<Span> {
        let on = self.0.as_ref()?;
        Some(on.span(name.into(), SpanKind::Consumer, &parent.context()))
    }

    /// Exports the remaining spans, in bounded time, and stops.
    pub async fn stop(&self) {
        if let Some(on) = &self.0 {
            on.export.stop().await;
        }
    }
}

impl On {
    fn span(self: &Arc<Self>, name: Cow<'static, str>, kind: SpanKind, parent: &Context) -> Span {
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        let span = self.tracer.build_with_context(builder, parent);
        Span::new(self.clone(), span)
    }
}

/// The resource of all spans. The OpenTelemetry variables take precedence over our name.
fn resource(node: &str) -> Resource {
    let detected = Resource::builder().build();
    let name = detected
        .iter()
        .find(|(key, _)| key.as_str() == "service.name");
    let is_named = name.is_some_and(|(_, name)| !name.as_str().starts_with("unknown_service"));
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.instance.id", node.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    if !is_named {
        resource = resource.with_service_name("signalbox");
    }
    resource.build()
}
