//! Notices when a server dies that holds members of rooms.
//!
//! Such a server cannot say so, and nobody reads its fields again without a reason. A lease that was valid for a certain time
//! when it was read is read again only after that time, so a node asks Redis about each of those servers once in ten to fifteen seconds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Value;
use signalbox_redis_client::{Commands, Unavailable};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use super::{
    holders::Holders,
    keys::{KeyNames, ServerId},
    lease::LEASE,
};

/// Added to the end of a lease before it is read again.
const MARGIN: Duration = Duration::from_millis(20);

/// The answer of Redis about a key that does not expire, which no server sets.
const NO_END: i64 = -1;

/// How long a lease without an end is believed.
const LEASE_MIN: Duration = Duration::from_secs(10);

/// Pause after a read that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The servers with members, each with the time until which its lease is known to be valid.
pub(super) struct MemberLeases {
    commands: Commands,
    keys: Arc<KeyNames>,
    holders: Arc<Holders>,
    valid_until: Mutex<HashMap<ServerId, Instant>>,
    added: Notify,
}

impl MemberLeases {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>, holders: Arc<Holders>) -> Self {
        Self {
            commands,
            keys,
            holders,
            valid_until: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// Notes that `servers`, which are alive, hold members.
    pub(super) fn note(&self, servers: &[ServerId]) {
        let mut valid_until = self.valid_until();
        let before = valid_until.len();
        for server in servers {
            if !valid_until.contains_key(server) {
                valid_until.insert(server.clone(), Instant::now());
            }
        }
        let is_more = valid_until.len() > before;
        drop(valid_until);
        if is_more {
            self.added.notify_one();
        }
    }

    /// Returns when one of them has died. It is forgotten.
    pub(super) async fn lost(&self) {
        loop {
            let next = self.valid_until().values().min().copied();
            let Some(next) = next else {
                self.added.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.added.notified() => continue,
            }
            match self.find_dead().await {
                Ok(dead) if dead.is_empty() => {}
                Ok(dead) => {
                    debug!(?dead, "servers with members have no lease any more");
                    return;
                }
                Err(error) => {
                    debug!(%error, "leases of servers with members could not be read");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Reads the leases that may have ended, and forgets the servers without one.
    async fn find_dead(&self) -> Result<Vec<ServerId>, Unavailable> {
        let now = Instant::now();
        let due: Vec<ServerId> = {
            let valid_until = self.valid_until();
            let due = valid_until.iter().filter(|(_, until)| **until <= now);
            due.map(|(server, _)| server.clone()).collect()
        };
        let questions = due.iter().map(|server| {
            let mut left = redis::cmd("PTTL");
            left.arg(self.keys.lease(server));
            left
        });
        let answers = self.commands.run_all(questions.collect()).await?;
        let mut dead = Vec::new();
        for (server, left) in due.into_iter().zip(answers) {
            match left {
                Value::Int(left) if left >= NO_END => {
                    self.valid_until().insert(server, now + valid_for(left));
                }
                _ => {
                    self.valid_until().remove(&server);
                    self.holders.recheck(&server);
                    dead.push(server);
                }
            }
        }
        Ok(dead)
    }

    fn valid_until(&self) -> MutexGuard<'_, HashMap<ServerId, Instant>> {
        self.valid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a lease that ends after `left` ms is believed. One that seems to last longer than any lease was written before the clock
/// of Redis was set back: its server renews it within seconds, or is dead.
fn valid_for(left: i64) -> Duration {
    let left = u64::try_from(left).map_or(LEASE_MIN, Duration::from_millis);
    left.min(LEASE) + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_believed_until_its_end_and_never_for_longer_than_leases_last() {
        let hour = 3_600_000;
        for (left, expected) in [
            (7_000, Duration::from_secs(7)),
            (NO_END, LEASE_MIN),
            (hour, LEASE),
        ] {
            assert_eq!(valid_for(left), expected + MARGIN, "{left}");
        }
    }
}
