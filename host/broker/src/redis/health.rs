//! Whether published messages come back and routes are written: the broker's part of `/ready`.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Silence after which delivery counts as broken.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(3);

/// How long a duty may stay undone before this node is not ready. Retries happen in between.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// Something that this node must keep written so that others find it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Duty {
    Lease,
    Routes,
}

/// The state of the broker, as its tasks report it.
#[derive(Debug)]
pub(super) struct Health(Mutex<HealthState>);

#[derive(Debug)]
struct HealthState {
    /// When the last probe was sent; `None` once it came back.
    probe: Option<Instant>,
    /// When a probe came back last.
    echo: Option<Instant>,
    /// Why messages do not come in; `None` if they do.
    deaf: Option<String>,
    /// Since when each duty cannot be done, and why.
    late: [Option<(Instant, String)>; 2],
    left: bool,
}

impl Health {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HealthState {
            probe: None,
            echo: None,
            deaf: Some("not subscribed yet".to_owned()),
            late: [None, None],
            left: false,
        }))
    }

    /// # Errors
    /// Returns the reason if this node cannot be relied on now.
    pub(super) fn check(&self) -> Result<(), String> {
        let state = self.state();
        if state.left {
            return Err("this node has left the cluster".to_owned());
        }
        if let Some(reason) = &state.deaf {
            return Err(reason.clone());
        }
        if state.echo.is_none_or(|at| at.elapsed() > SILENCE_MAX) {
            return Err("messages to this node do not come back from Redis".to_owned());
        }
        let mut late = state.late.iter().flatten();
        match late.find(|(since, _)| since.elapsed() > LATE_AFTER) {
            Some((_, reason)) => Err(format!("this node cannot be found by others: {reason}")),
            None => Ok(()),
        }
    }

    /// A probe is being sent.
    pub(super) fn probed(&self) {
        self.state().probe = Some(Instant::now());
    }

    /// A probe came back. Returns its round-trip time; `None` if it is not the last one that was sent.
    pub(super) fn last_message(&self) -> Option<Duration> {
        let mut state = self.state();
        state.echo = Some(Instant::now());
        state.deaf = None;
        state.probe.take().map(|sent| sent.elapsed())
    }

    /// When a probe came back last.
    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.state().echo
    }

    /// Messages do not come in, until the next probe comes back.
    pub(super) fn deaf(&self, reason: String) {
        self.state().deaf = Some(reason);
    }

    /// `duty` could not be done.
    pub(super) fn late(&self, duty: Duty, reason: &str) {
        let late = &mut self.state().late[duty as usize];
        let since = late.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *late = Some((since, reason.to_owned()));
    }

    /// `duty` is done.
    pub(super) fn done(&self, duty: Duty) {
        self.state().late[duty as usize] = None;
    }

    /// This node is gone.
    pub(super) fn left(&self) {
        self.state().left = true;
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_well_only_while_its_probe_comes_back() {
        let health = Health::new();
        assert!(health.check().is_err(), "before the first echo");
        assert_eq!(health.last_message(), None, "none was sent");
        assert_eq!(health.check(), Ok(()));
        tokio::time::advance(SILENCE_MAX + Duration::from_millis(1)).await;
        assert!(health.check().is_err(), "silent for too long");
        health.last_message();
        health.deaf("the connection is lost".to_owned());
        assert_eq!(health.check(), Err("the connection is lost".to_owned()));
        health.last_message();
        assert_eq!(health.check(), Ok(()));
        health.left();
        assert!(health.check().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn routes_that_stay_unwritten_make_it_unwell() {
        let health = Health::new();
        health.last_message();
        health.late(Duty::Routes, "no answer");
        assert_eq!(health.check(), Ok(()), "a retry is no failure");
        tokio::time::advance(LATE_AFTER + Duration::from_millis(1)).await;
        health.late(Duty::Routes, "no answer");
        health.done(Duty::Lease);
        health.last_message();
        assert!(health.check().is_err());
        health.done(Duty::Routes);
        assert_eq!(health.check(), Ok(()));
    }
}
