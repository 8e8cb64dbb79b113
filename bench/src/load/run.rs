//! A run from the first connection to the report.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::bail;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::clock::now_ns;
use super::connect::connect_all;
use super::endpoint::{Behaviour, Endpoint, receive};
use super::message::Template;
use super::pace;
use super::plan::{Mode, Plan};
use super::protocol::Destination;
use super::report::{Latency, Report};
use super::tally::Tally;
use crate::process::{Usage, usage};

/// Members of a room that send. Each receiver checks the order of each sender, so a few senders are enough, and many
/// would cost memory.
const ROOM_SENDERS_MAX: usize = 16;

/// Time limit for the server to answer a greeting, a join or a heartbeat on all connections.
const CONFIRM_TIME_MAX: Duration = Duration::from_secs(60);

/// Time limit for messages in flight to arrive after the last one was sent, and the silence after which the missing
/// ones count as lost.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(60);
const DRAIN_SILENCE: Duration = Duration::from_secs(5);

/// Time limit for the closing handshakes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Interval for polling conditions that depend on other tasks.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Executes a plan: connect, warm up, measure, wait for messages in flight, close.
///
/// Prints `measuring` and `measured` to stderr at the start and the end of the measured time, so that a driver can act
/// in between.
///
/// # Errors
/// Returns an error if a connection cannot be opened, a room cannot be joined, or the server's process cannot be read.
/// Problems with messages are in the report.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let before = read_usage(plan)?;
    let connecting = Instant::now();
    let mut swarm = Swarm::connect(plan).await?;
    let connect_seconds = connecting.elapsed().as_secs_f64();
    swarm.get_ready(plan).await?;
    let pacing = swarm.start_traffic(plan.mode)?;
    if !matches!(plan.mode, Mode::Idle { .. }) {
        sleep(plan.options.warmup).await;
    }
    let start = Snapshot::take(plan, &swarm.tally)?;
    swarm.tally.measure_from(start.time_ns);
    eprintln!("measuring");
    if plan.options.until_input_ends {
        // Ends after `duration` at the latest.
        let _ = timeout(plan.duration(), end_of_input()).await;
    } else {
        sleep(plan.duration()).await;
    }
    let end = Snapshot::take(plan, &swarm.tally)?;
    swarm.tally.measure_until(end.time_ns);
    eprintln!("measured");
    swarm.tally.sending.store(false, Ordering::Relaxed);
    if let Some(pacing) = pacing {
        // The thread notices the stop within 50 ms; a message that is being sent at that moment must be waited for.
        let joined = tokio::task::spawn_blocking(move || pacing.join()).await;
        if let Ok(Err(panic)) = joined {
            std::panic::resume_unwind(panic);
        }
    }
    swarm.drain(plan).await;
    swarm.close().await;
    Ok(swarm.report(plan, connect_seconds, before, &start, &end))
}

/// Returns when standard input ends. The reading thread does not keep the process alive.
async fn end_of_input() {
    let (ended, end) = oneshot::channel();
    thread::spawn(move || {
        // An input that cannot be read counts as ended.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

fn read_usage(plan: &Plan) -> anyhow::Result<Option<Usage>> {
    let mut sum = None;
    for pid in &plan.options.cpu_pid {
        let Usage {
            cpu_seconds,
            rss_bytes,
        } = usage(*pid)?;
        let sum = sum.get_or_insert(Usage::default());
        sum.cpu_seconds += cpu_seconds;
        sum.rss_bytes += rss_bytes;
    }
    Ok(sum)
}

/// The counters at one end of the measured time, read as close together as possible.
struct Snapshot {
    time_ns: u64,
    delivered: u64,
    sent: u64,
    usage: Option<Usage>,
}

impl Snapshot {
    fn take(plan: &Plan, tally: &Tally) -> anyhow::Result<Self> {
        let usage = read_usage(plan)?;
        Ok(Self {
            time_ns: now_ns(),
            delivered: tally.counts().delivered,
            sent: tally.sent(),
            usage,
        })
    }
}

/// All connections of a run.
struct Swarm {
    endpoints: Vec<Arc<Endpoint>>,
    receiving: JoinSet<()>,
    tally: Arc<Tally>,
}

impl Swarm {
    async fn connect(plan: &Plan) -> anyhow::Result<Self> {
        let (protocol, senders) = (plan.options.target.protocol(), senders(plan.mode));
        let behaviour = Behaviour {
            reply: matches!(plan.mode, Mode::Pairs { .. }),
            with_sender: matches!(plan.mode, Mode::Room { .. }),
        };
        // Built before the first connection, so that a payload that is too small is found without disturbing the
        // server.
        let templates: Vec<_> = (0..plan.connections())
            .map(|index| template(plan, index))
            .collect::<Result<_, _>>()?;
        let mut swarm = Self {
            endpoints: Vec::new(),
            receiving: JoinSet::new(),
            tally: Arc::new(Tally::new()?),
        };
        for ((reader, writer), template) in connect_all(plan).await?.into_iter().zip(templates) {
            let endpoint = Arc::new(Endpoint::new(protocol, writer, template, senders));
            swarm.receiving.spawn(receive(
                reader,
                Arc::clone(&endpoint),
                Arc::clone(&swarm.tally),
                behaviour,
            ));
            swarm.endpoints.push(endpoint);
        }
        if protocol.greeting.is_some() {
            swarm.wait_until_ready().await?;
        }
        Ok(swarm)
    }

    /// Makes all connections members of the room, or waits until every receiver can be reached.
    async fn get_ready(&self, plan: &Plan) -> anyhow::Result<()> {
        let protocol = plan.options.target.protocol();
        let text = match plan.mode {
            Mode::Room { .. } => protocol.join.map(|join| join.replace('$', &plan.room())),
            Mode::Pairs { .. } | Mode::Open { .. } => protocol.settling.map(str::to_owned),
            Mode::Idle { .. } => None,
        };
        let Some(text) = text else {
            return Ok(());
        };
        self.tally.counts().ready = 0;
        self.endpoints
            .iter()
            .for_each(|endpoint| endpoint.ask(&text));
        self.wait_until_ready().await
    }

    /// Waits until the server has answered on all connections.
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let count = self.endpoints.len();
        let all_ready = async {
            while self.tally.counts().ready < count {
                sleep(POLL_INTERVAL).await;
            }
        };
        if timeout(CONFIRM_TIME_MAX, all_ready).await.is_ok() {
            return Ok(());
        }
        let counts = self.tally.counts();
        let error = match counts.first_errors.as_slice() {
            [] => "nothing".to_owned(),
            errors => errors.join("; "),
        };
        bail!(
            "{} of {count} connections were not confirmed after {} s; the server said: {error}",
            count - counts.ready,
            CONFIRM_TIME_MAX.as_secs()
        )
    }

    fn start_traffic(&self, mode: Mode) -> anyhow::Result<Option<thread::JoinHandle<()>>> {
        match mode {
            Mode::Idle { .. } => Ok(None),
            Mode::Pairs { in_flight, .. } => {
                for endpoint in &self.endpoints {
                    endpoint.send(in_flight, now_ns(), &self.tally);
                }
                Ok(None)
            }
            Mode::Open { rate, .. } => {
                pace::start(self.endpoints.clone(), rate, Arc::clone(&self.tally)).map(Some)
            }
            Mode::Room { rate, .. } => {
                let speakers = self.endpoints[..senders(mode)].to_vec();
                pace::start(speakers, rate, Arc::clone(&self.tally)).map(Some)
            }
        }
    }

    /// Waits until every sent message has arrived and, if it asked for it, was confirmed, or until neither happens any
    /// more.
    async fn drain(&self, plan: &Plan) {
        let copies = match plan.mode {
            Mode::Room { members, .. } => members as u64,
            _ => 1,
        };
        let acks = u64::from(plan.options.acks);
        let begun = Instant::now();
        let (mut arrived, mut last_arrival) = (0, begun);
        while begun.elapsed() < DRAIN_TIME_MAX && last_arrival.elapsed() < DRAIN_SILENCE {
            let (delivered, acked) = {
                let counts = self.tally.counts();
                (counts.delivered, counts.acked)
            };
            let sent = self.tally.sent();
            if delivered >= sent * copies && acked >= sent * acks {
                return;
            }
            if delivered + acked > arrived {
                (arrived, last_arrival) = (delivered + acked, Instant::now());
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn close(&mut self) {
        self.tally.finished.store(true, Ordering::Relaxed);
        self.endpoints.iter().for_each(|endpoint| endpoint.close());
        let all_closed = async { while self.receiving.join_next().await.is_some() {} };
        // If the server does not answer a close frame, aborting the tasks closes the sockets.
        let _ = timeout(CLOSE_TIME_MAX, all_closed).await;
        self.receiving.abort_all();
    }

    fn report(
        &self,
        plan: &Plan,
        connect_seconds: f64,
        before: Option<Usage>,
        start: &Snapshot,
        end: &Snapshot,
    ) -> Report {
        let counts = self.tally.counts();
        let measured_seconds = (end.time_ns - start.time_ns) as f64 / 1e9;
        let delivered = end.delivered - start.delivered;
        let cpu = start
            .usage
            .zip(end.usage)
            .map(|(start, end)| end.cpu_seconds - start.cpu_seconds);
        let grown = before
            .zip(end.usage)
            .map(|(before, end)| end.rss_bytes as f64 - before.rss_bytes as f64);
        let idle = matches!(plan.mode, Mode::Idle { .. });
        let (lost, duplicated, reordered) = self.order(plan.mode);
        let asked = if plan.options.acks {
            self.tally.sent()
        } else {
            0
        };
        Report {
            mode: plan.mode.name().to_owned(),
            connections: self.endpoints.len(),
            connect_seconds,
            measured_seconds,
            sent: end.sent - start.sent,
            sent_in_all: self.tally.sent(),
            delivered,
            delivered_per_second: delivered as f64 / measured_seconds,
            latency: Latency::of(&counts.latency),
            lost,
            duplicated,
            reordered,
            acked: counts.acked,
            unacked: asked.saturating_sub(counts.acked),
            errors: counts.errors,
            closed: counts.closed,
            first_errors: counts.first_errors.clone(),
            server_cpu_seconds: cpu,
            delivered_per_cpu_second: cpu
                .filter(|cpu| *cpu > 0.0)
                .map(|cpu| delivered as f64 / cpu),
            rss_before_bytes: before.map(|usage| usage.rss_bytes),
            rss_after_bytes: end.usage.map(|usage| usage.rss_bytes),
            rss_per_connection_bytes: grown
                .filter(|_| idle)
                .map(|grown| grown / self.endpoints.len() as f64),
        }
    }

    /// Lost, duplicated and reordered messages over all senders and receivers.
    fn order(&self, mode: Mode) -> (u64, u64, u64) {
        let sent: Vec<u64> = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.sent())
            .collect();
        let mut sums = (0, 0, 0);
        for (receiver, endpoint) in self.endpoints.iter().enumerate() {
            for (index, check) in endpoint.checks().iter().enumerate() {
                let room = matches!(mode, Mode::Room { .. });
                let sender = if room { index } else { receiver ^ 1 };
                // A server may exclude the sender from its own broadcast, but then it must always do so.
                let no_echo = room && sender == receiver && check.received == 0;
                if !no_echo {
                    sums.0 += sent[sender].saturating_sub(check.received);
                }
                sums.1 += check.duplicated;
                sums.2 += check.reordered;
            }
        }
        sums
    }
}

/// The number of senders that a connection receives from.
fn senders(mode: Mode) -> usize {
    match mode {
        Mode::Idle { .. } => 0,
        Mode::Pairs { .. } | Mode::Open { .. } => 1,
        Mode::Room { members, .. } => members.min(ROOM_SENDERS_MAX),
    }
}

fn template(plan: &Plan, index: usize) -> anyhow::Result<Option<Template>> {
    let (peer, room) = (plan.user(index ^ 1), plan.room());
    let destination = match plan.mode {
        Mode::Idle { .. } => return Ok(None),
        Mode::Pairs { .. } | Mode::Open { .. } => Destination::User(&peer),
        Mode::Room { .. } if index >= senders(plan.mode) => return Ok(None),
        Mode::Room { .. } => Destination::Room {
            room: &room,
            sender: index,
        },
    };
    let protocol = plan.options.target.protocol();
    Template::new(
        protocol,
        destination,
        plan.options.payload,
        plan.options.acks,
    )
    .map(Some)
}
