//! The task that reads, keeps and pushes metrics, once per interval and a last time at the end.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use signalbox_config::{CloudWatchConfig, StorageResolution};
use signalbox_telemetry::{
    metrics::{Metrics, readings::Family},
    supervise,
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, timeout_at},
};
use tracing::{info, warn};

use super::{
    backlog::Backlog,
    client::{CloudWatchSink, MetricSink, PutErrorKind},
    collector::Collector,
    outage::Outage,
};

/// Reads the current values of all metrics.
pub type ReadMetrics = Arc<dyn Fn() -> BoxFuture<'static, Vec<Family>> + Send + Sync>;

/// Pushes metrics to CloudWatch until it is asked to finish.
#[derive(Debug)]
pub struct Pusher {
    finish: oneshot::Sender<Instant>,
    task: JoinHandle<()>,
}

impl Pusher {
    /// Starts pushing what `read` returns, for the server `server_id`, to the destination in `config`. The results are
    /// counted in `metrics`.
    pub fn start(
        config: CloudWatchConfig,
        server_id: &str,
        metrics: Arc<Metrics>,
        read: ReadMetrics,
    ) -> Self {
        info!(
            namespace = config.namespace,
            interval = ?config.interval,
            server_id,
            "metrics are pushed to CloudWatch"
        );
        let worker = Worker {
            collector: Collector::new(server_id, SystemTime::now()),
            backlog: Backlog::default(),
            outage: Outage::default(),
            resolution: config.storage_resolution,
            metrics,
            read,
            sink: CloudWatchSink::new(config.clone()),
        };
        let (finish, finished) = oneshot::channel();
        let (metrics, interval) = (worker.metrics.clone(), config.interval);
        let state = (worker, finished);
        let task = supervise::spawn("CloudWatch", &metrics, state, move |(worker, finished)| {
            worker.run(interval, finished).boxed()
        });
        Self { finish, task }
    }

    /// Pushes what was counted since the last push and what still waits, until `deadline` at the latest.
    pub async fn finish(self, deadline: Instant) {
        // If the task is gone, nothing receives this.
        let _ = self.finish.send(deadline);
        let _ = self.task.await;
    }
}

struct Worker<S> {
    collector: Collector,
    backlog: Backlog,
    outage: Outage,
    resolution: StorageResolution,
    metrics: Arc<Metrics>,
    read: ReadMetrics,
    sink: S,
}

impl<S: MetricSink> Worker<S> {
    async fn run(&mut self, interval: Duration, finish: &mut oneshot::Receiver<Instant>) {
        if finish.is_terminated() {
            // The last push panicked, and it is not repeated.
            return;
        }
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = loop {
            tokio::select! {
                _ = ticks.tick() => {}
                deadline = &mut *finish => break deadline,
            }
            self.collect().await;
            let mut pushed = pin!(self.push());
            tokio::select! {
                () = &mut pushed => {}
                deadline = &mut *finish => {
                    // A request under way may still arrive: if it were given up, it would be sent twice.
                    if let Ok(deadline) = deadline {
                        let _ = timeout_at(deadline, pushed).await;
                    }
                    break deadline;
                }
            }
        };
        // Without a deadline, nobody waits for the last push.
        if let Ok(deadline) = deadline {
            let last = async {
                self.collect().await;
                self.push().await;
            };
            let _ = timeout_at(deadline, last).await;
            match self.backlog.len() {
                0 => {}
                left => warn!(
                    intervals = left,
                    "the last metrics did not reach CloudWatch"
                ),
            }
        }
    }

    async fn collect(&mut self) {
        let families = (self.read)().await;
        let interval = self.collector.collect(families, SystemTime::now());
        let dropped = self.backlog.add(interval);
        self.outage.dropped(&self.metrics.cloudwatch, dropped);
    }

    /// Pushes everything that waits, until something fails.
    async fn push(&mut self) {
        let counted = &self.metrics.cloudwatch;
        while let Some(mut batch) = self.backlog.next_batch(self.resolution) {
            match self.sink.push(std::mem::take(&mut batch.datums)).await {
                Ok(()) => {
                    self.outage.taken(counted);
                    self.backlog.taken(&batch);
                }
                // It would block everything that follows.
                Err(error) if error.kind == PutErrorKind::Invalid => {
                    self.outage.refused(counted, &error);
                    self.backlog.taken(&batch);
                }
                Err(error) => return self.outage.failed(counted, &error),
            }
        }
        self.outage.over();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use aws_sdk_cloudwatch::types::MetricDatum;
    use futures_util::FutureExt;
    use signalbox_telemetry::metrics::{NodeStatus, readings::read};

    use super::{super::client::PutError, *};

    /// Returns the prepared answers, and keeps the values that it took.
    #[derive(Clone, Default)]
    struct FakeSink(Arc<Mutex<Fake>>);

    #[derive(Default)]
    struct Fake {
        answers: VecDeque<Answer>,
        taken: Vec<MetricDatum>,
    }

    #[derive(Clone, Copy)]
    enum Answer {
        Fail(PutErrorKind),
        Never,
    }

    impl MetricSink for FakeSink {
        async fn push(&mut self, datums: Vec<MetricDatum>) -> Result<(), PutError> {
            let answer = self.0.lock().unwrap().answers.pop_front();
            match answer {
                None => {
                    self.0.lock().unwrap().taken.extend(datums);
                    Ok(())
                }
                Some(Answer::Fail(kind)) => {
                    let reason = "told to".to_owned();
                    Err(PutError { kind, reason })
                }
                Some(Answer::Never) => std::future::pending().await,
            }
        }
    }

    impl FakeSink {
        fn messages(&self) -> Vec<f64> {
            let fake = self.0.lock().unwrap();
            let of_all = fake.taken.iter().filter(|datum| {
                datum.metric_name() == Some("MessagesTotal") && datum.dimensions().is_empty()
            });
            of_all.filter_map(MetricDatum::value).collect()
        }
    }

    const INTERVAL: Duration = Duration::from_secs(60);

    fn start(sink: &FakeSink) -> (Arc<Metrics>, Pusher) {
        let metrics = Arc::<Metrics>::default();
        let all = metrics.clone();
        let worker = Worker {
            collector: Collector::new("n1", SystemTime::now()),
            backlog: Backlog::default(),
            outage: Outage::default(),
            resolution: StorageResolution::Minute,
            metrics: metrics.clone(),
            read: Arc::new(move || {
                let families = read(&all, &NodeStatus::default());
                std::future::ready(families).boxed()
            }),
            sink: sink.clone(),
        };
        let (finish, finished) = oneshot::channel();
        let state = (worker, finished);
        let task = supervise::spawn("CloudWatch", &metrics, state, |(worker, finished)| {
            worker.run(INTERVAL, finished).boxed()
        });
        (metrics, Pusher { finish, task })
    }

    /// Lets an interval in which `messages` were counted pass.
    async fn pass(metrics: &Metrics, messages: u64) {
        metrics.messages.add(messages);
        tokio::time::sleep(INTERVAL).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_interval_is_pushed_and_the_last_one_at_the_end() {
        let sink = FakeSink::default();
        let (metrics, pusher) = start(&sink);
        tokio::time::sleep(Duration::from_millis(1)).await;
        pass(&metrics, 3).await;
        pass(&metrics, 4).await;
        metrics.messages.add(5);
        pusher.finish(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(sink.messages(), [3.0, 4.0, 5.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_data_is_pushed_with_the_next_interval() {
        let sink = FakeSink::default();
        let kinds = [PutErrorKind::Broken, PutErrorKind::Throttled];
        sink.0.lock().unwrap().answers = kinds.map(Answer::Fail).into();
        let (metrics, pusher) = start(&sink);
        tokio::time::sleep(Duration::from_millis(1)).await;
        for messages in [3, 4, 5] {
            pass(&metrics, messages).await;
        }
        // Intervals are merged if they are close to each other, as they are by the clock of this test.
        assert_eq!(sink.messages().iter().sum::<f64>(), 12.0);
        assert_eq!(metrics.cloudwatch.pushes_failed.get(), 2);
        pusher.finish(Instant::now()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_metrics_do_not_block_others() {
        let sink = FakeSink::default();
        sink.0.lock().unwrap().answers = [Answer::Fail(PutErrorKind::Invalid)].into();
        let (metrics, pusher) = start(&sink);
        tokio::time::sleep(Duration::from_millis(1)).await;
        pass(&metrics, 3).await;
        pass(&metrics, 4).await;
        assert_eq!(sink.messages(), [4.0]);
        assert_eq!(metrics.cloudwatch.pushes_refused.get(), 1);
        pusher.finish(Instant::now()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_does_not_answer_does_not_hold_up_the_end() {
        let sink = FakeSink::default();
        sink.0.lock().unwrap().answers = [Answer::Never, Answer::Never].into();
        let (metrics, pusher) = start(&sink);
        tokio::time::sleep(Duration::from_millis(1)).await;
        pass(&metrics, 3).await;
        let deadline = Instant::now() + Duration::from_secs(1);
        pusher.finish(deadline).await;
        assert!(Instant::now() <= deadline + Duration::from_millis(10));
        assert_eq!(sink.messages(), [0.0; 0]);
    }
}
