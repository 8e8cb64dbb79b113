//! Whether published messages come back and routes are written: the broker's part of `/ready`.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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

/// The two ways of publishing, which take different paths through a Redis Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publishing {
    /// `PUBLISH`.
    Classic,
    /// `SPUBLISH`.
    Sharded,
}

/// The state of the broker, as its tasks report it.
#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<HealthState>,
    /// Whether a message has come in since the last check, for each [`Publishing`].
    heard: [AtomicBool; 2],
}

#[derive(Debug)]
struct HealthState {
    /// When the last probe was sent; `None` once it came back.
    probe: Option<Instant>,
    /// When a probe came back last, or when other messages were last seen to come in.
    heard: Option<Instant>,
    /// Why messages do not come in; `None` if they do.
    deaf: Option<String>,
    /// Since when each duty cannot be done, and why.
    late: [Option<(Instant, String)>; 2],
    left: bool,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(HealthState {
                probe: None,
                heard: None,
                deaf: Some("not subscribed yet".to_owned()),
                late: [None, None],
                left: false,
            }),
            heard: Default::default(),
        }
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
        if state.heard.is_none_or(|at| at.elapsed() > SILENCE_MAX) {
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
    pub(super) fn probe_came_back(&self, publishing: Publishing) -> Option<Duration> {
        self.message_came_in(publishing);
        let mut state = self.state();
        state.heard = Some(Instant::now());
        state.deaf = None;
        state.probe.take().map(|sent| sent.elapsed())
    }

    /// A message came in on this server's channel.
    pub(super) fn message_came_in(&self, publishing: Publishing) {
        self.heard[publishing as usize].store(true, Ordering::Relaxed);
    }

    /// Whether anything that was published in this way has come in since the last check. If so, the subscription works,
    /// even if a probe is still waiting behind other messages.
    pub(super) fn has_heard(&self, publishing: Publishing) -> bool {
        let heard = self.heard[publishing as usize].swap(false, Ordering::Relaxed);
        if heard {
            self.state().heard = Some(Instant::now());
        }
        heard
    }

    /// Messages do not come in until the next probe comes back.
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides when a subscription has been silent for too long.
///
/// Time alone does not show it: a process that was suspended, or that had no processor time, finds the messages of that
/// time in its socket. So it takes several checks, too, between which the process had time to read.
pub(super) struct Silence {
    since: Instant,
    checks: u32,
}

impl Silence {
    /// The number of checks in a row that must find nothing.
    const CHECKS_MIN: u32 = 3;

    pub(super) fn begin() -> Self {
        Self {
            since: Instant::now(),
            checks: 0,
        }
    }

    /// Records a check, and returns whether the silence has lasted too long.
    pub(super) fn lasts_too_long(&mut self, heard: bool) -> bool {
        if heard {
            *self = Self::begin();
            return false;
        }
        self.checks += 1;
        self.checks >= Self::CHECKS_MIN && self.since.elapsed() > SILENCE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_well_only_while_its_probe_comes_back() {
        let health = Health::new();
        assert!(health.check().is_err(), "before the first echo");
        assert_eq!(
            health.probe_came_back(Publishing::Classic),
            None,
            "none was sent"
        );
        assert_eq!(health.check(), Ok(()));
        tokio::time::advance(SILENCE_MAX + Duration::from_millis(1)).await;
        assert!(health.check().is_err(), "silent for too long");
        health.probe_came_back(Publishing::Classic);
        health.deaf("the connection is lost".to_owned());
        assert_eq!(health.check(), Err("the connection is lost".to_owned()));
        health.probe_came_back(Publishing::Classic);
        assert_eq!(health.check(), Ok(()));
        health.left();
        assert!(health.check().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn routes_that_stay_unwritten_make_it_unwell() {
        let health = Health::new();
        health.probe_came_back(Publishing::Classic);
        health.late(Duty::Routes, "no answer");
        assert_eq!(health.check(), Ok(()), "a retry is no failure");
        tokio::time::advance(LATE_AFTER + Duration::from_millis(1)).await;
        health.late(Duty::Routes, "no answer");
        health.done(Duty::Lease);
        health.probe_came_back(Publishing::Classic);
        assert!(health.check().is_err());
        health.done(Duty::Routes);
        assert_eq!(health.check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_prove_that_the_subscription_works_while_probes_wait_behind_them() {
        let health = Health::new();
        health.probe_came_back(Publishing::Sharded);
        for _ in 0..10 {
            tokio::time::advance(SILENCE_MAX).await;
            health.message_came_in(Publishing::Sharded);
            assert!(health.has_heard(Publishing::Sharded));
            assert!(
                !health.has_heard(Publishing::Sharded),
                "since the last check"
            );
            assert_eq!(health.check(), Ok(()));
        }
        // Workers publish the other way, which proves nothing about the way of probes.
        health.message_came_in(Publishing::Classic);
        assert!(!health.has_heard(Publishing::Sharded));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_lasts_too_long_after_three_seconds_in_which_the_process_ran() {
        let second = Duration::from_secs(1);
        let mut silence = Silence::begin();
        let mut checks = 0;
        while !silence.lasts_too_long(false) {
            tokio::time::advance(second).await;
            checks += 1;
        }
        assert_eq!(checks, 4);
        // Suspended for an hour, and then there is time to read.
        let mut silence = Silence::begin();
        tokio::time::advance(second * 3600).await;
        assert!(!silence.lasts_too_long(false));
        tokio::time::advance(second).await;
        assert!(!silence.lasts_too_long(true));
        // Checks in quick succession are not enough either.
        for _ in 0..100 {
            assert!(!silence.lasts_too_long(false));
        }
    }
}
