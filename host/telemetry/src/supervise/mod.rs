//! Tasks and threads that last as long as the server does: if one panics, it is logged, counted, and started again.
//!
//! Everything that a task must not lose in a panic belongs in its *state*, which is kept here and lent to each run. A
//! task that returns has ended on its own and is not started again.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep},
};
use tracing::error;

use crate::metrics::Metrics;

/// Pause before a task that panicked starts again: the first, and the maximum, up to which it doubles.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// After a run of at least this length, the pause starts from the first again.
const STEADY: Duration = Duration::from_secs(60);

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct OwnedTask(AbortHandle);

impl OwnedTask {
    /// Ends the task.
    pub fn end(&self) {
        self.0.abort();
    }
}

impl From<JoinHandle<()>> for OwnedTask {
    fn from(task: JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `task` in a separate task, and again after each panic, until it returns. `name` identifies it for operators.
pub fn spawn<S: Send + 'static>(
    name: &'static str,
    metrics: &Arc<Metrics>,
    state: S,
    task: impl for<'s> FnMut(&'s mut S) -> BoxFuture<'s, ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(supervised(name, metrics.clone(), state, task))
}

/// Like [`spawn`], but within the caller's task.
pub async fn supervised<S: Send + 'static>(
    name: &'static str,
    metrics: Arc<Metrics>,
    mut state: S,
    mut task: impl for<'s> FnMut(&'s mut S) -> BoxFuture<'s, ()> + Send + 'static,
) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let run = async { task(&mut state).await };
        let Err(panic) = AssertUnwindSafe(run).catch_unwind().await else {
            return;
        };
        let pause = backoff.next(began.elapsed());
        report(name, &metrics, panic.as_ref(), pause);
        sleep(pause).await;
    }
}

/// Runs `run` on this thread, and again after each panic, until it returns.
pub fn on_this_thread(name: &'static str, metrics: &Metrics, mut run: impl FnMut()) {
    let mut backoff = Backoff::default();
    loop {
        let began = std::time::Instant::now();
        let Err(panic) = catch_unwind(AssertUnwindSafe(&mut run)) else {
            return;
        };
        let pause = backoff.next(began.elapsed());
        report(name, metrics, panic.as_ref(), pause);
        thread::sleep(pause);
    }
}

fn report(name: &str, metrics: &Metrics, panic: &(dyn Any + Send), pause: Duration) {
    metrics.task_panics.increment();
    let reason = in_words(panic);
    error!(
        task = name,
        "a task of the server panicked: {reason}; it starts again in {pause:?}. This is a bug in the server: please report it"
    );
}

fn in_words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// Pauses that double while runs stay short.
#[derive(Default)]
struct Backoff(Duration);

impl Backoff {
    /// The pause after a run that lasted for `ran`.
    fn next(&mut self, ran: Duration) -> Duration {
        self.0 = if ran >= STEADY {
            PAUSE.0
        } else {
            (self.0 * 2).clamp(PAUSE.0, PAUSE.1)
        };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_owned_task_ends_when_it_is_dropped() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        drop(OwnedTask::from(task));
        assert!(receiver.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_restarted_with_its_state() {
        let metrics = Arc::<Metrics>::default();
        let (sender, mut numbers) = tokio::sync::mpsc::unbounded_channel();
        let task = spawn("test", &metrics, 0, move |runs: &mut u32| {
            *runs += 1;
            let (run, sender) = (*runs, sender.clone());
            async move {
                sender.send(run).unwrap();
                assert!(run > 3, "run {run} fails");
            }
            .boxed()
        });
        task.await.expect("the panics end here");
        for run in 1..=4 {
            assert_eq!(numbers.recv().await, Some(run));
        }
        assert_eq!(
            numbers.recv().await,
            None,
            "a task that returned stays ended"
        );
        assert_eq!(metrics.task_panics.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_before_its_first_await_is_started_again_too() {
        let metrics = Arc::<Metrics>::default();
        let task = spawn("test", &metrics, true, |fails: &mut bool| {
            assert!(!std::mem::take(fails), "before there is a future");
            std::future::ready(()).boxed()
        });
        task.await.expect("the panic ends here");
        assert_eq!(metrics.task_panics.get(), 1);
    }

    #[test]
    fn a_thread_that_panics_is_counted_and_continues() {
        let (metrics, mut runs) = (Metrics::default(), 0);
        on_this_thread("test", &metrics, || {
            runs += 1;
            assert!(runs > 1, "the first run fails");
        });
        assert_eq!((runs, metrics.task_panics.get()), (2, 1));
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_reset_after_a_steady_run() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|_| backoff.next(Duration::ZERO)).collect();
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(pauses[11], PAUSE.1);
        assert_eq!(backoff.next(STEADY), PAUSE.0);
    }

    #[test]
    fn a_panic_is_reported_in_its_own_words() {
        assert_eq!(in_words(&"text"), "text");
        assert_eq!(in_words(&"text".to_owned()), "text");
        assert_eq!(in_words(&7), "without a message");
    }
}
