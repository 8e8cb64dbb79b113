//! Keys that are fetched from `auth.jwks_url`: at the start, periodically, and when a token names an unknown key.
//!
//! One task fetches. If a set cannot be fetched, the last good one stays in use. An upgrade uses the keys that are
//! available; it waits, for a bounded time, only for a fetch that may bring the key that it needs.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use signalbox_telemetry::{
    metrics::{Metrics, events::KeysNotReloaded},
    supervise::{self, OwnedTask},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info};

use super::{
    AuthError, fetch,
    keys::{KEYS_BYTES_MAX, KeyNotFound, KeySet},
};

/// Minimum time between two fetches that an unknown `kid` triggers.
const REFETCH_PAUSE: Duration = Duration::from_secs(30);

/// Maximum time that an upgrade waits for a fetch.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Pause after a failed fetch: doubled from the first value up to the second.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The longest such pause while no client can be admitted at all.
const RETRY_PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(4);

/// Keys of a URL. Fetching ends when this value is dropped.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    shared: Arc<RemoteKeyState>,
    _task: OwnedTask,
}

#[derive(Debug)]
struct RemoteKeyState {
    url: String,
    /// `None` until keys are available for the first time.
    keys: ArcSwapOption<KeySet>,
    fetches: watch::Sender<Fetches>,
    /// Notified when a token names a key that is not in the set.
    wanted: Notify,
    refetch_pause: Duration,
    metrics: Arc<Metrics>,
}

/// The progress of fetching.
#[derive(Clone, Copy, Debug)]
struct Fetches {
    /// The number of fetches that have ended.
    done: u64,
    is_under_way: bool,
    /// Whether the last one failed.
    has_failed: bool,
    /// When an unknown `kid` may trigger the next one.
    refetch_from: Instant,
}

impl RemoteKeys {
    /// Begins to fetch from `url`. Until that succeeds, `meanwhile` is used.
    pub(super) fn start(
        url: &str,
        refresh_interval: Duration,
        metrics: Arc<Metrics>,
        meanwhile: Option<Arc<KeySet>>,
    ) -> Self {
        Self::start_pacing(url, refresh_interval, REFETCH_PAUSE, metrics, meanwhile)
    }

    fn start_pacing(
        url: &str,
        refresh_interval: Duration,
        refetch_pause: Duration,
        metrics: Arc<Metrics>,
        meanwhile: Option<Arc<KeySet>>,
    ) -> Self {
        let shared = Arc::new(RemoteKeyState {
            url: url.to_owned(),
            keys: ArcSwapOption::new(meanwhile),
            fetches: watch::Sender::new(Fetches {
                done: 0,
                is_under_way: true,
                has_failed: false,
                refetch_from: Instant::now(),
            }),
            wanted: Notify::new(),
            refetch_pause,
            metrics,
        });
        let (metrics, state) = (shared.metrics.clone(), shared.clone());
        let task = supervise::spawn("keys of tokens", &metrics, state, move |shared| {
            follow(shared.clone(), refresh_interval).boxed()
        });
        Self {
            shared,
            _task: task.into(),
        }
    }

    /// The current keys, if there are any.
    pub(super) fn now(&self) -> Option<Arc<KeySet>> {
        self.shared.keys.load_full()
    }

    /// Returns a set with the key that a token needs.
    ///
    /// # Errors
    /// Returns [`AuthError::KeysUnavailable`] if such a set may exist but cannot be fetched; otherwise, the error that
    /// the key is unknown.
    pub(super) async fn set_for(&self, kid: Option<&str>) -> Result<Arc<KeySet>, AuthError> {
        match self.look_up(kid) {
            Ok(set) => return Ok(set),
            Err(Some(KeyNotFound::Unnamed)) => return Err(KeyNotFound::Unnamed.into()),
            Err(Some(KeyNotFound::Unknown) | None) => {}
        }
        self.shared.wait_for_fetch().await;
        self.look_up(kid).map_err(|reason| {
            let fetches = *self.shared.fetches.borrow();
            match reason {
                Some(reason) if !fetches.has_failed && !fetches.is_under_way => reason.into(),
                _ => AuthError::KeysUnavailable,
            }
        })
    }

    fn look_up(&self, kid: Option<&str>) -> Result<Arc<KeySet>, Option<KeyNotFound>> {
        let set = self.now().ok_or(None)?;
        set.choose(kid).map_err(Some)?;
        Ok(set)
    }
}

impl RemoteKeyState {
    /// Requests a fetch, and waits for it unless the fetch itself has to wait. While there are no keys at all, fetching
    /// is retried on its own schedule, and no upgrade uses up the turn of an unknown `kid`.
    async fn wait_for_fetch(&self) {
        let mut fetches = self.fetches.subscribe();
        let before = *fetches.borrow();
        let may_ask = self.keys.load().is_some();
        if may_ask {
            self.wanted.notify_one();
        }
        if before.is_under_way || (may_ask && before.refetch_from <= Instant::now()) {
            let ended = fetches.wait_for(|now| now.done > before.done);
            let _ = timeout(WAIT_MAX, ended).await;
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let text = fetch::text(&self.url, KEYS_BYTES_MAX).await?;
        KeySet::of_jwks(&text).map_err(|reason| format!("its content {reason}"))
    }

    /// Waits until `due`, or until an unknown `kid` may trigger a fetch and does.
    async fn until_due(&self, due: Instant) {
        tokio::select! {
            () = sleep_until(due) => {}
            () = self.wanted.notified() => {
                let from = self.fetches.borrow().refetch_from;
                sleep_until(from.min(due)).await;
                let next = Instant::now() + self.refetch_pause;
                self.fetches.send_modify(|now| {
                    now.refetch_from = next;
                    now.is_under_way = true;
                });
            }
        }
    }
}

/// Fetches until aborted.
async fn follow(shared: Arc<RemoteKeyState>, refresh_interval: Duration) {
    let mut retry_pause = RETRY_PAUSE.0;
    let mut last_reason = None;
    loop {
        shared.fetches.send_modify(|now| now.is_under_way = true);
        let fetched = shared.fetch().await;
        let has_failed = fetched.is_err();
        let pause = match fetched {
            Ok(set) => {
                let keys = set.len();
                if last_reason.take().is_some() || shared.keys.load().is_none() {
                    info!(url = shared.url, keys, "fetched the keys of tokens");
                } else {
                    debug!(url = shared.url, keys, "fetched the keys of tokens");
                }
                shared.keys.store(Some(Arc::new(set)));
                retry_pause = RETRY_PAUSE.0;
                // So that not all nodes fetch at the same moment.
                refresh_interval.mul_f64(0.9 + 0.1 * fastrand::f64())
            }
            Err(reason) => {
                KeysNotReloaded {
                    metrics: &shared.metrics,
                    reason: &format!("auth.jwks_url: {}: {reason}", shared.url),
                    is_news: last_reason.as_ref() != Some(&reason),
                    has_old_keys: shared.keys.load().is_some(),
                }
                .emit();
                last_reason = Some(reason);
                let longest = match shared.keys.load().is_some() {
                    true => RETRY_PAUSE.1,
                    false => RETRY_PAUSE_WITHOUT_KEYS,
                };
                let pause = retry_pause.min(refresh_interval);
                retry_pause = (retry_pause * 2).min(longest);
                pause
            }
        };
        // This fetch answers the requests that came meanwhile.
        let _ = shared.wanted.notified().now_or_never();
        shared.fetches.send_modify(|now| {
            now.done += 1;
            now.is_under_way = false;
            now.has_failed = has_failed;
        });
        shared.until_due(Instant::now() + pause).await;
    }
}

#[cfg(test)]
mod tests;
