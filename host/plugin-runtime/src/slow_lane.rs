//! The slow lane: separate threads for calls that do not end within a tick or two.
//!
//! A guest that computes for milliseconds on one of the server's threads delays every message that waits for that
//! thread, even if it yields now and then. So a call that is interrupted after it has had its turn is moved: its
//! future, and the instance in it, goes to a thread that serves nothing else and has a lower priority than the serving
//! threads. The call comes back with the answer, or when it waits for the host.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, mpsc},
    task::Poll,
    thread,
};

use signalbox_telemetry::{
    metrics::{FailureKind, Metrics},
    supervise,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use super::{call_error::CallError, clock::Clock, cpu::CpuMeter};

/// The nice value of the threads. If all processors are busy, each gets about a third of the CPU time of a serving
/// thread, so that slow calls are not starved either.
const NICE: i32 = 5;

/// A call that can continue on any thread.
type Call<R> = Pin<Box<dyn Future<Output = R> + Send>>;
type Job = Box<dyn FnOnce() + Send>;

/// The threads of the slow lane. They end when this value is dropped.
pub(super) struct SlowLane {
    jobs: mpsc::Sender<Job>,
    clock: Arc<Clock>,
}

impl SlowLane {
    /// Starts `threads` threads. `clock` interrupts the calls.
    ///
    /// # Errors
    /// Returns the system's error if it cannot create them.
    pub(super) fn start(
        threads: usize,
        clock: &Arc<Clock>,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, metrics) = (queue.clone(), metrics.clone());
            let serve = move || {
                supervise::on_this_thread("slow lane", &metrics, || serve(&queue));
            };
            thread::Builder::new()
                .name("plugin-slow".to_owned())
                .spawn(serve)?;
        }
        let clock = clock.clone();
        Ok(Self { jobs, clock })
    }

    /// Runs `call` on one of the threads until it ends or waits for the host. Calls run in the order of their arrival.
    ///
    /// # Errors
    /// Returns [`CallError`] if there will be no answer.
    async fn run_offloaded<R: Send + 'static>(
        &self,
        call: Call<R>,
        meter: &Arc<CpuMeter>,
        place: OwnedSemaphorePermit,
    ) -> Result<CallProgress<R>, CallError> {
        let (reply, answer) = oneshot::channel();
        let (runtime, meter) = (Handle::current(), meter.clone());
        // The job keeps the clock running: its caller may go away first.
        let ticking = self.clock.run_for_job();
        let job = move || {
            // The caller may be gone by now.
            if !meter.is_given_up() {
                let stretch = run(&runtime, call, &meter);
                drop((place, ticking));
                let _ = reply.send(stretch);
            }
        };
        // The threads live as long as the sender.
        let _ = self.jobs.send(Box::new(job));
        answer.await.map_err(|_| gone())
    }
}

/// The error for a call that gets no answer because the host panicked.
fn gone() -> CallError {
    CallError::new(FailureKind::Trap, "the host gave the call up half-way")
}

/// How far a call got.
enum CallProgress<R> {
    Ended(R),
    Waits(Call<R>),
}

fn serve(queue: &Mutex<mpsc::Receiver<Job>>) {
    // If this is not permitted, slow calls just run at normal priority.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // The thread survives a panic; the caller notices that there is no answer.
        let _: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(job));
    }
}

/// Polls `call` once, which runs the guest until it ends or waits for the host: here it is never asked to yield. The
/// host's work for it uses `runtime`, as if the call were still there.
fn run<R>(runtime: &Handle, mut call: Call<R>, meter: &CpuMeter) -> CallProgress<R> {
    meter.stretch_begins();
    let poll = runtime.block_on(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))));
    meter.stretch_ends();
    match poll {
        Poll::Ready(answer) => CallProgress::Ended(answer),
        Poll::Pending => CallProgress::Waits(call),
    }
}

/// Runs `call`, whose CPU time `meter` measures, until `deadline`. Most calls end with the first poll, which needs
/// neither a timer nor a clock.
///
/// `own` has room for as many calls of one plugin as there are threads in the lane: calls of a plugin that is always
/// slow queue among themselves, and calls of other plugins wait for only a few of them.
///
/// # Errors
/// Returns [`CallError`] at the deadline. The instance must not be used again then.
#[expect(
    clippy::manual_async_fn,
    reason = "keeps what it is given once; an async function does twice"
)]
pub(super) fn run_with_deadline<R: Send + 'static, F: Future<Output = R> + Send + 'static>(
    deadline: Instant,
    meter: &Arc<CpuMeter>,
    lane: &SlowLane,
    own: &Arc<Semaphore>,
    mut call: Pin<Box<F>>,
) -> impl Future<Output = Result<R, CallError>> {
    async move {
        if let Poll::Ready(answer) = futures_util::poll!(call.as_mut()) {
            return Ok(answer);
        }
        meter.stretch_ends();
        // On the heap, because otherwise every idle connection would reserve room for it.
        Box::pin(finish_slow(deadline, meter, lane, own, call)).await
    }
}

/// Runs the rest of a call that did not end with the first poll.
async fn finish_slow<R: Send + 'static>(
    deadline: Instant,
    meter: &Arc<CpuMeter>,
    lane: &SlowLane,
    own: &Arc<Semaphore>,
    mut call: Call<R>,
) -> Result<R, CallError> {
    let mut given_up = CancelOnDrop(Some(meter));
    let rest = async {
        loop {
            if meter.wants_lane() {
                // The semaphore is never closed.
                let place = own.clone().acquire_owned().await.map_err(|_| gone())?;
                match lane.run_offloaded(call, meter, place).await? {
                    CallProgress::Ended(answer) => return Ok(answer),
                    CallProgress::Waits(again) => call = again,
                }
            }
            if let Some(answer) = poll_fn(|cx| meter.poll(call.as_mut(), cx)).await {
                return Ok(answer);
            }
        }
    };
    let late = |_| {
        CallError::new(
            FailureKind::Deadline,
            "the call took longer than allowed (`call_time_max` or `init_time_max` of the plugin)",
        )
    };
    let ended = timeout_at(deadline, rest).await.map_err(late)?;
    given_up.0 = None;
    ended
}

/// Gives a call up when it is dropped: a caller that went away, or got a deadline error, no longer needs the answer.
struct CancelOnDrop<'a>(Option<&'a Arc<CpuMeter>>);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(meter) = self.0 {
            meter.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use wasmtime::Engine;

    use super::*;
    use crate::{call_error::Stopped, cpu::InterruptAction};

    const BUDGET: Duration = Duration::from_secs(60);

    fn lane() -> SlowLane {
        let metrics = Arc::default();
        let clock = Clock::start(Engine::default().weak(), &metrics).unwrap();
        SlowLane::start(1, &clock, &metrics).unwrap()
    }

    /// A plugin's room for one call in the lane.
    fn own() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(1))
    }

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    /// Behaves like an interrupted guest that has had its turn.
    async fn leave(meter: &CpuMeter) {
        while meter.interrupted(BUDGET).unwrap() == InterruptAction::Continue {}
        tokio::task::yield_now().await;
    }

    async fn run<R: Send + 'static>(
        lane: &SlowLane,
        own: &Arc<Semaphore>,
        meter: &Arc<CpuMeter>,
        call: impl Future<Output = R> + Send + 'static,
    ) -> Result<R, CallError> {
        run_with_deadline(Instant::now() + BUDGET, meter, lane, own, Box::pin(call)).await
    }

    #[tokio::test]
    async fn a_long_call_moves_to_the_slow_lane_and_returns_when_it_waits() {
        let lane = lane();
        let meter = Arc::<CpuMeter>::default();
        let mine = meter.clone();
        let (open, gate) = oneshot::channel();
        let (in_lane, left) = unbounded_channel();
        let call = async move {
            let mut seen = vec![thread_name()];
            leave(&mine).await;
            seen.push(thread_name());
            let _ = in_lane.send(());
            let opened: Result<(), _> = gate.await;
            seen.push(thread_name());
            opened.map(|()| seen)
        };
        let own = own();
        let mut call = Box::pin(run(&lane, &own, &meter, call));
        // After this loop the call waits on this thread, and the plugin's permit is free again.
        while futures_util::poll!(call.as_mut()).is_pending()
            && (left.is_empty() || own.available_permits() == 0)
        {
            tokio::task::yield_now().await;
        }
        open.send(()).unwrap();
        let seen = call.await;
        let here = thread_name();
        assert_eq!(seen.unwrap().unwrap(), [&here, "plugin-slow", &here]);
    }

    #[tokio::test]
    async fn calls_of_one_plugin_queue_among_themselves_and_others_go_before_them() {
        let lane = lane();
        let (busy, other) = (own(), own());
        let (ended, mut order) = unbounded_channel();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let call = |name: &'static str, ended: &UnboundedSender<&'static str>| {
            let (meter, ended) = (Arc::<CpuMeter>::default(), ended.clone());
            let mine = meter.clone();
            (meter, async move {
                leave(&mine).await;
                let _ = ended.send(name);
            })
        };
        // The first call holds the only thread until the others are in line.
        let (meter, first) = call("first", &ended);
        let first = async move {
            first.await;
            gate.recv()
        };
        let first = run(&lane, &busy, &meter, first);
        let (second_meter, second) = call("second", &ended);
        let (third_meter, third) = call("other", &ended);
        let rest = async {
            assert_eq!(order.recv().await, Some("first"));
            let mut second = Box::pin(run(&lane, &busy, &second_meter, second));
            let mut third = Box::pin(run(&lane, &other, &third_meter, third));
            assert!(futures_util::poll!(second.as_mut()).is_pending());
            assert!(futures_util::poll!(third.as_mut()).is_pending());
            open.send(()).unwrap();
            let (second, third) = tokio::join!(second, third);
            second.and(third)
        };
        let (first, rest) = tokio::join!(first, rest);
        assert!(first.is_ok() && rest.is_ok());
        assert_eq!(
            (order.recv().await, order.recv().await),
            (Some("other"), Some("second"))
        );
    }

    #[tokio::test]
    async fn a_call_that_is_late_is_stopped_and_the_thread_serves_the_next() {
        let lane = lane();
        let (meter, own) = (Arc::<CpuMeter>::default(), own());
        let mine = meter.clone();
        let (report, stopped) = oneshot::channel();
        let endless = async move {
            leave(&mine).await;
            let error = loop {
                if let Err(error) = mine.interrupted(BUDGET) {
                    break error;
                }
            };
            let _ = report.send(matches!(error, Stopped::GivenUp));
        };
        let soon = Instant::now() + Duration::from_millis(50);
        let late = run_with_deadline(soon, &meter, &lane, &own, Box::pin(endless)).await;
        assert_eq!(late.unwrap_err().kind, FailureKind::Deadline);
        assert_eq!(stopped.await, Ok(true));
        let meter = Arc::<CpuMeter>::default();
        let mine = meter.clone();
        let next = async move { leave(&mine).await };
        assert!(run(&lane, &own, &meter, next).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_of_the_host_costs_that_call_alone() {
        let lane = lane();
        let own = own();
        for panics in [true, false] {
            let meter = Arc::<CpuMeter>::default();
            let mine = meter.clone();
            let call = async move {
                leave(&mine).await;
                assert!(!panics, "on purpose");
            };
            assert_eq!(run(&lane, &own, &meter, call).await.is_err(), panics);
        }
    }
}
