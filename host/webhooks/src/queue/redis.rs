//! Queues in Redis, which all nodes share.
//!
//! Every key begins with the configured prefix, followed by `signalbox:{webhooks}:`. The braces put all of them into one slot
//! of a cluster, so that one script may access everything it needs. The keys are:
//!
//! - `reported`: a set of the rooms and members that were reported as there.
//! - `QUEUE:events`: the events of a webhook, as a stream. `QUEUE` is a hash of its URL.
//! - `QUEUE:sender`: the node that sends them, with a time to live, which it renews.
//! - `QUEUE:batch`: the ID of the batch that is being sent, and of its last event. Another node sends the same batch again if
//!   that one dies.
//!
//! A key that is not used for a week is removed by Redis itself. Each change is one script, and therefore atomic.

use std::{collections::HashMap, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use signalbox_redis_client::{Commands, Script, Unavailable};

use super::{
    BATCH_BYTES_MAX, BatchClaim, CLAIM_TIME, EventBatch, EventQueue, NextEvents, OccupancyChange,
    Pushed, QueueAddress, QueueState, QueueUnavailable, QueuedEvent, ReportedPage, TrimmedQueue,
};

/// Time after which Redis removes a key that is not used.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The names that are read at once, roughly.
const PAGE: usize = 256;

/// An [`EventQueue`] that all nodes share, and that survives each of them.
pub struct RedisQueue {
    commands: Commands,
    start: String,
    push: Script,
    claim: Script,
    finish: Script,
    keep: Script,
}

impl RedisQueue {
    /// Creates the queues. Every key begins with `prefix`.
    pub fn new(commands: Commands, prefix: &str) -> Self {
        Self {
            commands,
            start: format!("{prefix}signalbox:{{webhooks}}:"),
            push: Script::new(include_str!("redis/push.lua")),
            claim: Script::new(include_str!("redis/claim.lua")),
            finish: Script::new(include_str!("redis/finish.lua")),
            keep: Script::new(include_str!("redis/keep.lua")),
        }
    }

    fn reported_key(&self) -> String {
        format!("{}reported", self.start)
    }

    fn key(&self, queue: &str, part: &str) -> String {
        format!("{}{queue}:{part}", self.start)
    }

    async fn push_all(&self, events: &[QueuedEvent]) -> Result<Pushed, Unavailable> {
        let mut queues: Vec<&QueueAddress> = Vec::new();
        let mut places = HashMap::new();
        for address in events.iter().flat_map(|event| &event.queues) {
            places.entry(&address.queue).or_insert_with(|| {
                queues.push(address);
                queues.len()
            });
        }
        let streams = queues
            .iter()
            .map(|address| self.key(&address.queue, "events"));
        let keys: Vec<String> = [self.reported_key()].into_iter().chain(streams).collect();
        let mut arguments = vec![KEPT.as_millis().to_string()];
        arguments.extend(queues.iter().map(|address| address.length_max.to_string()));
        for event in events {
            arguments.push(match &event.change {
                None => String::new(),
                Some(OccupancyChange::Came(name)) => format!("+{name}"),
                Some(OccupancyChange::Went(name)) => format!("-{name}"),
            });
            arguments.push(event.queues.len().to_string());
            let places = event.queues.iter().filter_map(|one| places.get(&one.queue));
            arguments.extend(places.map(usize::to_string));
            arguments.push(event.text.clone());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        let answer = self.commands.run_script(&self.push, &keys, &arguments);
        let (added, trimmed): (Vec<usize>, Vec<(usize, usize)>) = answer.await?;
        let queues = queues.iter().zip(trimmed);
        Ok(Pushed {
            added: added.into_iter().map(|added| added == 1).collect(),
            queues: queues
                .map(|(address, (dropped, length))| TrimmedQueue {
                    queue: address.queue.clone(),
                    dropped,
                    length,
                })
                .collect(),
        })
    }

    async fn claim_next(&self, claim: BatchClaim<'_>) -> Result<QueueState, Unavailable> {
        let keys = ["events", "sender", "batch"].map(|part| self.key(claim.queue, part));
        let arguments = [
            claim.sender.to_owned(),
            CLAIM_TIME.as_millis().to_string(),
            claim.batch_max.to_string(),
            BATCH_BYTES_MAX.to_string(),
            claim.batch_time.as_millis().to_string(),
            claim.batch_id.to_owned(),
            KEPT.as_millis().to_string(),
        ];
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        let answer = self.commands.run_script(&self.claim, &keys, &arguments);
        let (next, detail, length, age, events): (String, String, usize, u64, Vec<String>) =
            answer.await?;
        let time = || Duration::from_millis(detail.parse().unwrap_or_default());
        Ok(QueueState {
            length,
            oldest: Duration::from_millis(age),
            next: match next.as_str() {
                "other" => NextEvents::OfAnother(time()),
                "later" => NextEvents::Later(time()),
                "batch" => NextEvents::Batch(EventBatch { id: detail, events }),
                _ => NextEvents::None,
            },
        })
    }

    async fn keep_for(
        &self,
        queue: &str,
        sender: &str,
        time: Duration,
    ) -> Result<bool, Unavailable> {
        let time = time.as_millis().to_string();
        let arguments = [sender.as_bytes(), time.as_bytes()];
        let kept: usize = self
            .commands
            .run_script(&self.keep, &[self.key(queue, "sender")], &arguments)
            .await?;
        Ok(kept == 1)
    }

    async fn finish_batch(&self, queue: &str, batch_id: &str) -> Result<(), Unavailable> {
        let keys = ["events", "batch"].map(|part| self.key(queue, part));
        let arguments = [batch_id.as_bytes()];
        let removed = self.commands.run_script(&self.finish, &keys, &arguments);
        removed.await.map(|_: usize| ())
    }

    async fn read_reported(&self, cursor: u64) -> Result<ReportedPage, Unavailable> {
        let key = self.reported_key();
        if cursor == 0 {
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(&key).arg(KEPT.as_millis() as u64);
            self.commands.run::<()>(&expire).await?;
        }
        let mut scan = redis::cmd("SSCAN");
        scan.arg(key).arg(cursor).arg("COUNT").arg(PAGE);
        let (next, names): (u64, Vec<String>) = self.commands.run(&scan).await?;
        Ok(ReportedPage { names, next })
    }
}

impl EventQueue for RedisQueue {
    fn push<'a>(
        &'a self,
        events: &'a [QueuedEvent],
    ) -> BoxFuture<'a, Result<Pushed, QueueUnavailable>> {
        async move { Ok(self.push_all(events).await?) }.boxed()
    }

    fn claim<'a>(
        &'a self,
        claim: BatchClaim<'a>,
    ) -> BoxFuture<'a, Result<QueueState, QueueUnavailable>> {
        async move { Ok(self.claim_next(claim).await?) }.boxed()
    }

    fn renew<'a>(
        &'a self,
        queue: &'a str,
        sender: &'a str,
    ) -> BoxFuture<'a, Result<bool, QueueUnavailable>> {
        async move { Ok(self.keep_for(queue, sender, CLAIM_TIME).await?) }.boxed()
    }

    fn finish<'a>(
        &'a self,
        queue: &'a str,
        batch_id: &'a str,
    ) -> BoxFuture<'a, Result<(), QueueUnavailable>> {
        async move { Ok(self.finish_batch(queue, batch_id).await?) }.boxed()
    }

    fn release<'a>(
        &'a self,
        queue: &'a str,
        sender: &'a str,
    ) -> BoxFuture<'a, Result<(), QueueUnavailable>> {
        async move {
            self.keep_for(queue, sender, Duration::ZERO).await?;
            Ok(())
        }
        .boxed()
    }

    fn reported(&self, cursor: u64) -> BoxFuture<'_, Result<ReportedPage, QueueUnavailable>> {
        async move { Ok(self.read_reported(cursor).await?) }.boxed()
    }

    fn outlives_process(&self) -> bool {
        true
    }

    /// Other nodes send them.
    fn discard(&self, _: &str) -> usize {
        0
    }
}

impl From<Unavailable> for QueueUnavailable {
    fn from(error: Unavailable) -> Self {
        Self(error.to_string().into())
    }
}
