//! Messages that are handled once: a key in Redis for each, which holds the claim of a node and then the answer.

use std::sync::Arc;

use signalbox_redis_client::{Commands, Script, Unavailable};

use super::keys::KeyNames;
use crate::{ONCE_LEASE, OnceClaim, OnceSettlement, OnceState};

/// How often a key is read that ends at the same moment.
const ATTEMPTS: u32 = 3;

/// Writes `ARGV[2]` for `ARGV[3]` milliseconds, or removes the key if that is 0, provided that the key still holds the claim
/// `ARGV[1]`. Returns whether it did.
const SETTLE: &str = r#"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
if ARGV[3] == '0' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"#;

/// The claims and answers of the cluster.
pub(super) struct OnceKeys {
    commands: Commands,
    keys: Arc<KeyNames>,
    settle: Script,
}

impl OnceKeys {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>) -> Self {
        Self {
            commands,
            keys,
            settle: Script::new(SETTLE),
        }
    }

    /// Claims the message of `claim` if it is neither claimed nor answered. A claim that is carried out twice, as a cluster may
    /// do, finds itself.
    pub(super) async fn begin(&self, claim: &OnceClaim) -> Result<OnceState, Unavailable> {
        let key = self.keys.once(&claim.key);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(claim.text()).arg("NX");
        set.arg("PX").arg(millis(ONCE_LEASE));
        let mut get = redis::cmd("GET");
        get.arg(&key);
        for _ in 0..ATTEMPTS {
            if self.commands.run::<Option<String>>(&set).await?.is_some() {
                return Ok(OnceState::Claimed);
            }
            // `SET` with `NX` returns the value only from Redis 7 on.
            if let Some(found) = self.commands.run::<Option<String>>(&get).await? {
                let foreign = || Unavailable::new(format!("{key} holds a malformed value"));
                return claim.state_of(&found).ok_or_else(foreign);
            }
        }
        Err(Unavailable::new("a claim ended each time that it was read"))
    }

    /// Settles `claim`. Returns `false` if it had ended.
    pub(super) async fn settle(
        &self,
        claim: &OnceClaim,
        settlement: OnceSettlement<'_>,
    ) -> Result<bool, Unavailable> {
        let text = claim.text();
        let (kept, time) = match settlement {
            OnceSettlement::Renew => (text.clone(), millis(ONCE_LEASE)),
            OnceSettlement::Keep { answer, time } => (claim.text_with(answer), millis(time)),
            OnceSettlement::Release => (String::new(), 0),
        };
        let args = [
            text.as_bytes(),
            kept.as_bytes(),
            &time.to_string().into_bytes(),
        ];
        let keys = [self.keys.once(&claim.key)];
        self.commands.run_script(&self.settle, &keys, &args).await
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
