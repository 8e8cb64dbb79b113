//! Compilations that took too long. A compiler cannot be interrupted, so it continues in the background: with low
//! priority, once for each component, and only a bounded number of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use rustix::process::Pid;
use tokio::time::timeout;

use super::{compile::LOW_NICE, load_error::LoadError, sha256::Sha256};

/// The maximum number of given-up compilations that still run. Once it is reached, nothing is compiled until one of
/// them ends.
const GIVEN_UP_MAX: usize = 2;

/// The compilations that were given up and may still run.
#[derive(Default)]
pub(super) struct AbandonedCompilations(Mutex<Vec<(Sha256, Weak<Compilation>)>>);

/// One compilation. Each of its threads holds it until it ends.
#[derive(Debug, Default)]
pub(super) struct Compilation(Mutex<Vec<Pid>>);

impl Compilation {
    /// Adds this thread to it.
    pub(super) fn join(&self) {
        self.threads().push(rustix::thread::gettid());
    }

    fn slow_down(&self) {
        for thread in self.threads().iter() {
            // The thread may have ended in the meantime.
            let _ = rustix::process::setpriority_process(Some(*thread), LOW_NICE);
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AbandonedCompilations {
    /// Waits for a compilation of the component `hash`, for at most `max`.
    ///
    /// # Errors
    /// Returns [`LoadError::CompileTime`] if it takes longer. Returns it at once if a compilation of this component was
    /// given up and still runs, or if too many others do.
    pub(super) async fn bounded<T, F>(
        &self,
        hash: Sha256,
        max: Duration,
        compile: impl FnOnce(Arc<Compilation>) -> F,
    ) -> Result<T, LoadError>
    where
        F: Future<Output = Result<T, LoadError>>,
    {
        self.check(&hash)?;
        let compilation = Arc::<Compilation>::default();
        let compiled = timeout(max, compile(compilation.clone())).await;
        compiled.unwrap_or_else(|_| {
            compilation.slow_down();
            self.running().push((hash, Arc::downgrade(&compilation)));
            Err(LoadError::CompileTime(format!(
                "compiling it took longer than {max:?} (`compile_time_max`) and was given up; make the component smaller, or allow more"
            )))
        })
    }

    fn check(&self, hash: &Sha256) -> Result<(), LoadError> {
        let running = self.running();
        let refused = |reason: &str| Err(LoadError::CompileTime(reason.to_owned()));
        if running.iter().any(|(other, _)| other == hash) {
            return refused(
                "an earlier compilation of it was given up and still runs; try again later, when its result may be \
                 ready",
            );
        }
        if running.len() >= GIVEN_UP_MAX {
            return refused(
                "compilations that were given up still run; try again later, or restart the server to end them",
            );
        }
        Ok(())
    }

    /// The compilations that still run.
    fn running(&self) -> MutexGuard<'_, Vec<(Sha256, Weak<Compilation>)>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, compilation)| compilation.strong_count() > 0);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::{future, sync::mpsc, thread};

    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    /// A compilation that continues until the returned sender is dropped.
    async fn give_up(given_up: &AbandonedCompilations, hash: Sha256) -> mpsc::Sender<()> {
        let (gate, closed) = mpsc::channel::<()>();
        let compile = |compilation: Arc<Compilation>| {
            thread::spawn(move || {
                compilation.join();
                let _ = closed.recv();
                drop(compilation);
            });
            future::pending::<Result<(), LoadError>>()
        };
        let error = given_up.bounded(hash, NO_TIME, compile).await.unwrap_err();
        assert!(error.to_string().contains("compile_time_max"), "{error}");
        assert_eq!(error.step(), "compile");
        gate
    }

    async fn compile(given_up: &AbandonedCompilations, hash: Sha256) -> Result<(), LoadError> {
        let long = Duration::from_secs(60);
        given_up
            .bounded(hash, long, |_| future::ready(Ok(())))
            .await
    }

    #[tokio::test]
    async fn a_compilation_that_takes_too_long_is_given_up_and_not_begun_again_while_it_runs() {
        let given_up = AbandonedCompilations::default();
        let gate = give_up(&given_up, [1; 32].into()).await;
        assert!(compile(&given_up, [1; 32].into()).await.is_err());
        assert!(
            compile(&given_up, [2; 32].into()).await.is_ok(),
            "others go on"
        );
        drop(gate);
        while compile(&given_up, [1; 32].into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_number_of_abandoned_compilations_is_bounded() {
        let given_up = AbandonedCompilations::default();
        let first = give_up(&given_up, [1; 32].into()).await;
        let second = give_up(&given_up, [2; 32].into()).await;
        let refused = compile(&given_up, [3; 32].into()).await.unwrap_err();
        assert!(refused.to_string().contains("restart"), "{refused}");
        drop((first, second));
        while compile(&given_up, [3; 32].into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
