//! An OpenTelemetry collector (OTLP over HTTP) that keeps the spans it receives.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::span::SpanKind,
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinSet};

use crate::redis::until;

/// The parts of a span that tests check.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty if there is none.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) failed: bool,
    pub(crate) attributes: BTreeMap<String, String>,
    /// The resource attributes of the process.
    pub(crate) resource: BTreeMap<String, String>,
}

/// Listens until it is dropped.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    taken: Arc<Taken>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Taken {
    spans: Mutex<Vec<Span>>,
    /// If set, the response to every export.
    refusal: Mutex<Option<StatusCode>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let taken = Arc::<Taken>::default();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(taken.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self {
            address,
            taken,
            _server: server,
        }
    }

    /// Configuration that traces every message to this collector.
    pub(crate) fn config(&self) -> String {
        let address = self.address;
        format!("[tracing]\notlp_endpoint = \"http://{address}\"\nsample_ratio = 1.0\n")
    }

    /// Rejects exports with `status` from now on; None accepts them again.
    pub(crate) fn refuse(&self, status: Option<StatusCode>) {
        *self.taken.refusal.lock().unwrap() = status;
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.taken.spans.lock().unwrap().clone()
    }

    /// Waits for `count` spans of this name, and returns them.
    pub(crate) async fn until_spans(&self, count: usize, name: &str) -> Vec<Span> {
        until(name, async || {
            let mut spans = self.spans();
            spans.retain(|span| span.name == name);
            (spans.len() >= count).then_some(spans)
        })
        .await
    }
}

async fn take(State(taken): State<Arc<Taken>>, body: Bytes) -> StatusCode {
    if let Some(status) = *taken.refusal.lock().unwrap() {
        return status;
    }
    let request = ExportTraceServiceRequest::decode(body).expect("the body is OTLP");
    let mut spans = taken.spans.lock().unwrap();
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.expect("a resource").attributes);
        let all = of_resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        spans.extend(all.map(|span| Span {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            kind: span.kind(),
            failed: span.status.is_some_and(|status| status.code == 2),
            name: span.name,
            attributes: attributes(span.attributes),
            resource: resource.clone(),
        }));
    }
    StatusCode::OK
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| {
        let value = attribute.value.and_then(|value| value.value);
        let value = match value.expect("a value") {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        (attribute.key, value)
    };
    attributes.into_iter().map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
