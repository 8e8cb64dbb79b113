//! Exports spans to a collector: through a bounded queue, in batches, by OTLP over HTTP.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::Context;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use rustls::crypto::aws_lc_rs;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    error_chain::with_causes,
    metrics::{Metrics, SpanDropReason},
    supervise,
};

/// Maximum number of queued spans; further ones are dropped and counted. A collector that is unavailable for some
/// seconds causes no loss.
const QUEUE_MAX: usize = 4_096;

/// Maximum number of spans in one request.
const BATCH_MAX: usize = 512;

/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// How long one request may take. `OTEL_EXPORTER_OTLP_TIMEOUT` bounds a batch with all its attempts, 10 s by default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last batches may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The OpenTelemetry variables are invalid.
    #[error(
        "spans cannot be exported: {0}; correct tracing.otlp_endpoint or the OTEL_EXPORTER_OTLP_ variable"
    )]
    Exporter(#[from] ExporterBuildError),
    /// There are no certificates to verify the collector's with.
    #[error(
        "tracing.otlp_endpoint is https, and the system has no certificates to check it with: {0}"
    )]
    Certificates(#[from] std::io::Error),
}

/// The task that exports spans.
#[derive(Debug)]
pub(super) struct Export {
    closing: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Starts to export the spans in the queue to `endpoint`.
pub(super) fn start(
    endpoint: &str,
    resource: &Resource,
    metrics: Arc<Metrics>,
) -> Result<(SpanQueue, Export), SetupError> {
    let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let client = Arc::new(Client::new(&endpoint)?);
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_shared_http_client(client.clone())
        .with_endpoint(&endpoint)
        // Regardless of OTEL_EXPORTER_OTLP_PROTOCOL.
        .with_protocol(Protocol::HttpBinary)
        .build()?;
    exporter.set_resource(resource);
    let (spans, queue) = mpsc::channel(QUEUE_MAX);
    let closing = CancellationToken::new();
    let worker = Worker {
        exporter,
        client,
        endpoint,
        metrics: metrics.clone(),
        closing: closing.clone(),
        failing: false,
    };
    let state = (worker, queue);
    let task = supervise::spawn("export of spans", &metrics, state, |(worker, queue)| {
        worker.run(queue).boxed()
    });
    let export = Export {
        closing,
        task: Mutex::new(Some(task)),
    };
    Ok((SpanQueue { spans, metrics }, export))
}

impl Export {
    /// Exports the remaining spans, in bounded time. Spans that end later are dropped.
    pub(super) async fn stop(&self) {
        self.closing.cancel();
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut task) = task
            && timeout(STOP_TIMEOUT, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

/// The queue of finished spans. Never waits.
#[derive(Debug)]
pub(super) struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            let dropped = &self.metrics.trace_spans_dropped;
            dropped.of(SpanDropReason::QueueFull).increment();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

struct Worker {
    exporter: SpanExporter,
    client: Arc<Client>,
    endpoint: String,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    failing: bool,
}

impl Worker {
    /// Exports until the queue is closed and empty.
    async fn run(&mut self, queue: &mut mpsc::Receiver<SpanData>) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                taken = queue.recv_many(&mut batch, BATCH_MAX) => if taken == 0 { return },
                () = self.closing.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
            }
            if batch.len() < BATCH_MAX && !queue.is_closed() {
                let _ = timeout(LINGER, self.closing.cancelled()).await;
                while batch.len() < BATCH_MAX
                    && let Ok(span) = queue.try_recv()
                {
                    batch.push(span);
                }
            }
            self.export(batch).await;
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        // Clears the error of an earlier request.
        self.client.last_error();
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.metrics.trace_spans_exported.add(count);
                if std::mem::take(&mut self.failing) {
                    info!(endpoint = self.endpoint, "spans reach the collector again");
                }
            }
            Err(error) => {
                let dropped = &self.metrics.trace_spans_dropped;
                dropped.of(SpanDropReason::Export).add(count);
                let reason = self.client.last_error().unwrap_or(error.to_string());
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        endpoint = self.endpoint,
                        reason, "spans do not reach the collector, and are dropped until they do"
                    );
                }
            }
        }
    }
}

/// The HTTP client. It remembers errors, because the exporter reports only that there was one.
#[derive(Debug)]
struct Client {
    http: Box<dyn HttpClient>,
    last_error: Mutex<Option<String>>,
}

impl Client {
    fn new(endpoint: &str) -> Result<Self, SetupError> {
        let http: Box<dyn HttpClient> = if endpoint.starts_with("https:") {
            let tls = HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(aws_lc_rs::default_provider())?
                .https_only()
                .enable_http1()
                .build();
            Box::new(HyperClient::new(tls, REQUEST_TIMEOUT, None))
        } else {
            Box::new(HyperClient::with_default_connector(REQUEST_TIMEOUT, None))
        };
        Ok(Self {
            http,
            last_error: Mutex::default(),
        })
    }

    /// The error of the last request that got no response, returned once.
    fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.http.send_bytes(request).await.inspect_err(|error| {
            let mut last_error = self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *last_error = Some(with_causes(&**error));
        })
    }
}
