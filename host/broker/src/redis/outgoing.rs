//! Publishing, with a bound on the bytes that are under way.

use std::sync::Arc;

use redis::Cmd;
use signalbox_redis_client::{Commands, Unavailable};
use signalbox_telemetry::{metrics::Metrics, trace::Trace};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    keys::{KeyNames, ServerId},
    post::Post,
};

/// The most bytes that may be under way to Redis at a time. Beyond it a sender waits, and gets `unavailable` after the
/// command timeout.
const UNDER_WAY_BYTES_MAX: usize = 16 << 20;

/// Messages to the channels of other servers.
pub(super) struct Outgoing {
    commands: Commands,
    keys: Arc<KeyNames>,
    metrics: Arc<Metrics>,
    under_way: Semaphore,
}

impl Outgoing {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>, metrics: Arc<Metrics>) -> Self {
        Self {
            commands,
            keys,
            metrics,
            under_way: Semaphore::new(UNDER_WAY_BYTES_MAX),
        }
    }

    /// Publishes `text` on the channel of `server`, and returns whether anybody listens; `true` if that is unknown. `span`
    /// covers this publish alone.
    pub(super) async fn post(
        &self,
        server: &ServerId,
        text: &str,
        span: Trace<'_>,
    ) -> Result<bool, Unavailable> {
        let post = Post::new(&self.commands, &self.keys, server, text)?;
        let listeners = self.send(post.command(), text.len(), span).await?;
        Ok(post.is_heard(listeners))
    }

    /// Publishes `text` on the channel of all servers, and returns the number of listeners.
    pub(super) async fn broadcast(
        &self,
        text: &str,
        span: Trace<'_>,
    ) -> Result<usize, Unavailable> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.broadcast_channel()).arg(text);
        self.send(&command, text.len(), span).await
    }

    /// Returns as soon as `bytes` more may be under way to Redis. They are until the result is dropped.
    ///
    /// # Errors
    /// [`Unavailable`] after the command timeout.
    pub(super) async fn admit(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Unavailable> {
        let wanted = u32::try_from(bytes.clamp(1, UNDER_WAY_BYTES_MAX)).unwrap_or(u32::MAX);
        let place = timeout(
            self.keys.command_timeout(),
            self.under_way.acquire_many(wanted),
        );
        match place.await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Unavailable::new(
                "too much data for Redis is pending already",
            )),
        }
    }

    /// Publishes as soon as `bytes` more may be under way.
    async fn send(
        &self,
        command: &Cmd,
        bytes: usize,
        span: Trace<'_>,
    ) -> Result<usize, Unavailable> {
        self.metrics.redis.publishes.increment();
        let failed = |reason: &'static str| {
            if let Some(span) = span {
                span.fail(reason);
            }
            self.metrics.redis.publish_failures.increment();
        };
        let _place = self
            .admit(bytes)
            .await
            .inspect_err(|_| failed("too much data is pending"))?;
        let sent = self.commands.run_once(command).await;
        sent.inspect_err(|_| failed("unavailable"))
    }
}
