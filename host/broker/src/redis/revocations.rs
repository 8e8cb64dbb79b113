//! Revocations in Redis: a sorted set of texts, each with its end as score.
//!
//! A revocation is written there first, and then announced to all nodes. A node compares the set with the revocations
//! that it knows on each new link and each new subscription, because announcements may have been lost, and every 30 s. It
//! adopts those that it does not know, and writes those that are missing in Redis, which may have lost them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use redis::Cmd;
use serde::{Deserialize, Serialize};
use signalbox_protocol::timestamp::unix_millis;
use signalbox_redis_client::{Commands, Script, Unavailable};
use tokio::{sync::Notify, time::sleep};
use tracing::{debug, info, warn};

use super::keys::KeyNames;
use crate::{
    BrokerError, LocalNode, REVOCATIONS_MAX, Revocation, RevocationSet, RevokeError, Revoked,
    revocations::KEPT_AFTER_END_MS,
};

/// How often a node compares.
const COMPARE_INTERVAL: Duration = Duration::from_secs(30);

/// Pause after a comparison that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Revocations that are read or written with one command.
const BATCH: usize = 500;

/// The type of announcements. Nothing else on the channel has it.
const TYPE: &str = "signalbox.revoked";

/// Adds pairs of an end and a text from `ARGV[3]` on, unless there are `ARGV[1]` already; returns 0 then. Those that ended are kept
/// for `ARGV[2]` longer, or for a minute if there is no room. Times are in milliseconds. Clocks differ, and may be wrong for a while:
/// that of Redis decides for all nodes. Redis refuses to keep a key for much longer than 1,000 years, which only foreign texts ask for.
const ADD: &str = r#"
local key, most, kept = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function forget(before)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', before))
end
forget(now - kept)
for i = 3, #ARGV, 2 do
    local known = redis.call('ZSCORE', key, ARGV[i + 1])
    if not known and redis.call('ZCARD', key) >= most then
        forget(now - 60000)
        if redis.call('ZCARD', key) >= most then
            return 0
        end
    end
    if not known or tonumber(known) < tonumber(ARGV[i]) then
        redis.call('ZADD', key, ARGV[i], ARGV[i + 1])
    end
    local left = math.min(tonumber(ARGV[i]) - now + kept, 31536000000000)
    if redis.call('PTTL', key) < left then
        redis.call('PEXPIRE', key, string.format('%.0f', left))
    end
end
return 1
"#;

/// The announcement of a revocation.
#[derive(Debug, Serialize, Deserialize)]
struct Announcement<S, R> {
    r#type: S,
    until: u64,
    revoked: R,
}

/// The revocations of the cluster, as this node knows them.
pub(super) struct ClusterRevocations {
    commands: Commands,
    keys: Arc<KeyNames>,
    node: Arc<dyn LocalNode>,
    set: RevocationSet,
    add: Script,
    /// Notified when a comparison is due.
    due: Notify,
}

/// The revocations in Redis.
struct StoredRevocations {
    /// The end for each text.
    ends: HashMap<String, u64>,
    /// Those that can be read.
    revocations: Vec<Revocation>,
}

impl ClusterRevocations {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>, node: Arc<dyn LocalNode>) -> Self {
        Self {
            commands,
            keys,
            node,
            set: RevocationSet::default(),
            add: Script::new(ADD),
            due: Notify::new(),
        }
    }

    /// Those that this node knows.
    pub(super) fn known(&self) -> &RevocationSet {
        &self.set
    }

    /// Makes a revocation.
    pub(super) async fn revoke(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        if !self.store(std::slice::from_ref(revocation)).await? {
            return Err(RevokeError::Full);
        }
        self.adopt(revocation)?;
        let mut publish = redis::cmd("PUBLISH");
        publish
            .arg(self.keys.revoked_channel())
            .arg(announcement(revocation));
        self.commands.run::<()>(&publish).await?;
        Ok(())
    }

    /// Handles an announcement.
    ///
    /// # Errors
    /// Returns the reason if it cannot be understood.
    pub(super) fn announced(&self, text: &str) -> Result<(), String> {
        let announced: Announcement<String, Revoked> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        if announced.r#type != TYPE {
            return Err(format!("its type is not {TYPE:?}"));
        }
        let revocation = Revocation {
            of: announced.revoked,
            until_ms: announced.until,
        };
        self.adopt(&revocation).map_err(|error| error.to_string())
    }

    /// Announcements may have been lost.
    pub(super) fn compare_soon(&self) {
        self.due.notify_one();
    }

    /// Enforces a revocation that this node does not know yet.
    fn adopt(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        if self.set.insert(revocation, SystemTime::now())? {
            self.node.enforce(&revocation.of);
        }
        Ok(())
    }

    /// Adopts the revocations in Redis, and writes those that are missing there.
    async fn compare(&self) -> Result<(), Unavailable> {
        let stored = self.read().await?;
        for revocation in &stored.revocations {
            if let Err(error) = self.adopt(revocation) {
                warn!(%error, "revocations in Redis are ignored");
                break;
            }
        }
        if !self.set.is_read() {
            let count = stored.revocations.len();
            debug!(count, "revocations were read");
            self.set.note_read();
        }
        let mut missing = self.set.list(SystemTime::now());
        missing.retain(|revocation| {
            let end = stored.ends.get(&text(&revocation.of));
            end.is_none_or(|end| *end < revocation.until_ms)
        });
        if missing.is_empty() {
            return Ok(());
        }
        for batch in missing.chunks(BATCH) {
            self.store(batch).await?;
        }
        let count = missing.len();
        info!(count, "revocations were written to Redis again");
        Ok(())
    }

    async fn read(&self) -> Result<StoredRevocations, Unavailable> {
        let now = unix_millis(SystemTime::now());
        let mut stored = StoredRevocations {
            ends: HashMap::new(),
            revocations: Vec::new(),
        };
        for offset in (0..=REVOCATIONS_MAX).step_by(BATCH) {
            let page: Vec<(String, f64)> = self.commands.run(&self.page(now, offset)).await?;
            let is_last = page.len() < BATCH;
            for (text, end) in page {
                let until_ms = end as u64;
                match serde_json::from_str(&text) {
                    Ok(of) => stored.revocations.push(Revocation { of, until_ms }),
                    Err(error) => debug!(%error, "a malformed revocation is ignored"),
                }
                stored.ends.insert(text, until_ms);
            }
            if is_last {
                break;
            }
        }
        Ok(stored)
    }

    /// The command that reads a page of those that have not ended at `now`.
    fn page(&self, now: u64, offset: usize) -> Cmd {
        let mut page = redis::cmd("ZRANGEBYSCORE");
        page.arg(self.keys.revoked())
            .arg(now)
            .arg("+inf")
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(offset)
            .arg(BATCH);
        page
    }

    /// Writes revocations. Returns `false` if there is no room for all of them.
    async fn store(&self, revocations: &[Revocation]) -> Result<bool, Unavailable> {
        let mut args = vec![REVOCATIONS_MAX.to_string(), KEPT_AFTER_END_MS.to_string()];
        for revocation in revocations {
            args.push(revocation.until_ms.to_string());
            args.push(text(&revocation.of));
        }
        let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
        let keys = [self.keys.revoked()];
        let stored: i64 = self.commands.run_script(&self.add, &keys, &args).await?;
        Ok(stored == 1)
    }
}

/// Compares until it is aborted.
pub(super) async fn follow(revocations: &ClusterRevocations) {
    let mut links = revocations.commands.links();
    loop {
        links.borrow_and_update();
        let pause = match revocations.compare().await {
            Ok(()) => COMPARE_INTERVAL,
            Err(error) => {
                debug!(%error, "revocations were not compared");
                RETRY_PAUSE
            }
        };
        tokio::select! {
            changed = links.changed() => if changed.is_err() { return },
            () = revocations.due.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// The text for a revocation in Redis, which is always the same for equal ones.
fn text(revoked: &Revoked) -> String {
    // Strings and numbers under string keys always serialize.
    serde_json::to_string(revoked).unwrap_or_default()
}

fn announcement(revocation: &Revocation) -> String {
    let announcement = Announcement {
        r#type: TYPE,
        until: revocation.until_ms,
        revoked: &revocation.of,
    };
    // Strings and numbers under string keys always serialize.
    serde_json::to_string(&announcement).unwrap_or_default()
}

impl From<Unavailable> for RevokeError {
    fn from(error: Unavailable) -> Self {
        Self::Broker(BrokerError::from(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_carries_every_name() {
        let name = || "u\"\n\0ä".to_owned();
        for of in [
            Revoked::Token(name()),
            Revoked::User(name()),
            Revoked::TokensOf {
                user: name(),
                issued_before_ms: 7,
            },
        ] {
            let announced = announcement(&Revocation {
                of: of.clone(),
                until_ms: 9,
            });
            let read: Announcement<String, Revoked> = serde_json::from_str(&announced).unwrap();
            assert_eq!((read.until, &read.revoked), (9, &of));
            assert_eq!(read.r#type, TYPE);
            assert_eq!(serde_json::from_str::<Revoked>(&text(&of)).unwrap(), of);
        }
    }
}
