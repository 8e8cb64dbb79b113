//! A simulated CloudWatch (moto) in a separate process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_cloudwatch::{
    Client,
    config::Credentials,
    primitives::DateTime,
    types::{Datapoint, Dimension, Statistic},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::harness::{PATIENCE, get};

/// The region that the metrics are pushed to.
pub(crate) const REGION: &str = "eu-central-1";

/// The default namespace.
pub(crate) const NAMESPACE: &str = "wss/metrics";

/// A running moto, which ends when this value is dropped.
pub(crate) struct Moto {
    pub(crate) address: std::net::SocketAddr,
    client: Client,
    _process: Child,
}

/// A single pushed value.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recorded {
    region: String,
    pub(crate) namespace: String,
    pub(crate) metric: String,
    pub(crate) unit: Option<String>,
    pub(crate) dimensions: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// The Python interpreter with moto installed.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/moto/bin/python")
}

impl Moto {
    pub(crate) async fn start() -> Self {
        let server =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cloudwatch/moto_server.py");
        let mut process = Command::new(python())
            .arg(server)
            // moto exits when its standard input closes, however this process ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("moto is in target/moto; `cargo xtask test` puts it there");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let port = timeout(PATIENCE, lines.next_line())
            .await
            .expect("moto starts")
            .expect("it says something")
            .expect("it does not end")
            .parse::<u16>()
            .expect("it says its port");
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(Credentials::new("reader", "secret", None, None, "test"))
            .load()
            .await;
        let moto = Self {
            address: ([127, 0, 0, 1], port).into(),
            client: Client::new(&config),
            _process: process,
        };
        // moto initialises on its first request, which takes a while. If a push timed out because of that, it would be
        // sent twice.
        assert_eq!(moto.metrics().await, []);
        moto
    }

    /// Names and dimensions of all metrics, from ListMetrics.
    pub(crate) async fn metrics(&self) -> Vec<(String, BTreeMap<String, String>)> {
        let listed = self.client.list_metrics().namespace(NAMESPACE).send().await;
        let listed = listed.expect("metrics are listed");
        assert_eq!(listed.next_token(), None, "more than one page");
        let metrics = listed.metrics().iter();
        metrics
            .map(|metric| {
                let pairs = metric.dimensions().iter();
                let pair = |dimension: &Dimension| {
                    let (name, value) = (dimension.name(), dimension.value());
                    (
                        name.unwrap_or_default().to_owned(),
                        value.unwrap_or_default().to_owned(),
                    )
                };
                (
                    metric.metric_name().unwrap_or_default().to_owned(),
                    pairs.map(pair).collect(),
                )
            })
            .collect()
    }

    /// All pushed values of one metric with these dimensions, aggregated into one, from GetMetricStatistics.
    pub(crate) async fn whole(
        &self,
        metric: &str,
        dimensions: &[(&str, &str)],
    ) -> Option<Datapoint> {
        let now = SystemTime::now();
        let dimensions = dimensions
            .iter()
            .map(|(name, value)| Dimension::builder().name(*name).value(*value).build());
        let statistics = [
            Statistic::SampleCount,
            Statistic::Sum,
            Statistic::Average,
            Statistic::Minimum,
            Statistic::Maximum,
        ];
        let answer = self
            .client
            .get_metric_statistics()
            .namespace(NAMESPACE)
            .metric_name(metric)
            .set_dimensions(Some(dimensions.collect()))
            .start_time(DateTime::from(now - Duration::from_secs(1_800)))
            .end_time(DateTime::from(now + Duration::from_secs(60)))
            .period(3_600)
            .set_statistics(Some(statistics.into()))
            .send()
            .await;
        let mut found = answer
            .expect("statistics are read")
            .datapoints
            .unwrap_or_default();
        assert!(found.len() <= 1, "{metric}: {found:?}");
        found.pop()
    }

    /// The single values of one metric with exactly these dimensions, sorted. CloudWatch computes percentiles from
    /// them.
    pub(crate) async fn recorded(
        &self,
        metric: &str,
        dimensions: &[(&str, &str)],
    ) -> Vec<Recorded> {
        let (status, body) = get(self.address, "/recorded").await.expect("moto answers");
        assert_eq!(status, 200, "{body}");
        let mut recorded: Vec<Recorded> = serde_json::from_str(&body).expect("a list of values");
        let dimensions = owned(dimensions);
        recorded.retain(|datum| datum.metric == metric && datum.dimensions == dimensions);
        for datum in &recorded {
            assert_eq!((&*datum.region, &*datum.namespace), (REGION, NAMESPACE));
        }
        recorded.sort_by(|a, b| a.value.total_cmp(&b.value));
        recorded
    }
}

/// Dimensions as owned names and values.
pub(crate) fn owned(dimensions: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = dimensions.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
