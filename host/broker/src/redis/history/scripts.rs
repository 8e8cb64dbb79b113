//! The scripts that change histories. Each is one atomic command on the keys of one history.

use std::{sync::Arc, time::Duration};

use signalbox_protocol::{Epoch, Frame, Position};
use signalbox_redis_client::{Commands, Script, Unavailable};

use super::{super::keys::KeyNames, answers::LogEntry};
use crate::{AppendOnce, HistoryName, Retention, history::new_epoch};

/// The longest time after which a key may expire: 1,000 years. Redis refuses times that end too late for it.
const EXPIRY_MAX: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);

/// Sets `epoch` and `last` to the position of a history. If there is none, it is malformed, or its numbers are used up,
/// begins the epoch `ARGV[1]`. `KEYS` are head and log. Lua would write a large number with an exponent, so numbers are
/// texts. The largest one is [`signalbox_protocol::OFFSET_MAX`]. The head then lives for `ARGV[2]` ms.
macro_rules! open_history {
    () => {
        r#"
local head = redis.call('HMGET', KEYS[1], 'e', 'o')
local epoch, last = head[1], head[2]
local is_there = epoch and last and #epoch <= 32 and string.match(epoch, '^%w+$')
    and string.match(last, '^%d+$') and tonumber(last) < 9007199254740991
if not is_there then
    epoch, last = ARGV[1], '0'
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[1], 'e', epoch, 'o', last)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"#
    };
}

/// Appends the frame `ARGV[3]` to an open history, and keeps the last `ARGV[4]` messages for `ARGV[5]` ms.
macro_rules! append_frame {
    () => {
        r#"
last = string.format('%.0f', tonumber(last) + 1)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[4], last .. '-0', epoch, ARGV[3])
redis.call('HSET', KEYS[1], 'o', last)
redis.call('PEXPIRE', KEYS[2], ARGV[5])
"#
    };
}

const APPEND: &str = concat!(open_history!(), append_frame!(), "return {epoch, last}");

/// Appends as [`APPEND`] does, and remembers the position in `KEYS[3]` for `ARGV[6]` ms. If that key names a position of the
/// epoch, appends nothing, and returns this position with the entry of the log, if that is still there.
const APPEND_ONCE: &str = concat!(
    open_history!(),
    r#"
local place = redis.call('GET', KEYS[3])
local first = place and string.match(place, '^' .. epoch .. ' (%d+)$')
if first and tonumber(first) <= tonumber(last) then
    redis.call('PEXPIRE', KEYS[3], ARGV[6])
    return {epoch, first, redis.call('XREVRANGE', KEYS[2], first .. '-0', first .. '-0')}
end
"#,
    append_frame!(),
    r#"
redis.call('SET', KEYS[3], epoch .. ' ' .. last, 'PX', ARGV[6])
return {epoch, last, false}
"#
);

const OPEN: &str = concat!(open_history!(), "return {epoch, last}");

/// Begins the epoch `ARGV[2]` if the current one is `ARGV[1]`.
const RESET: &str = r#"
if redis.call('HGET', KEYS[1], 'e') == ARGV[1] then
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[1], 'e', ARGV[2], 'o', '0')
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
"#;

/// The arguments of [`APPEND`] and [`APPEND_ONCE`] that do not depend on the frame.
struct AppendArguments {
    epoch: Epoch,
    position_time: String,
    size: String,
    time: String,
}

/// Runs the scripts, each once or not at all.
pub(super) struct HistoryScripts {
    commands: Commands,
    keys: Arc<KeyNames>,
    append: Script,
    append_once: Script,
    open: Script,
    reset: Script,
}

impl HistoryScripts {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>) -> Self {
        Self {
            commands,
            keys,
            append: Script::new(APPEND),
            append_once: Script::new(APPEND_ONCE),
            open: Script::new(OPEN),
            reset: Script::new(RESET),
        }
    }

    /// Appends `frame`, and returns its position.
    pub(super) async fn append(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
    ) -> Result<Position, Unavailable> {
        let arguments = AppendArguments::new(retention);
        let args = arguments.with(frame);
        self.position_after(&self.append, name, &args).await
    }

    /// Appends `frame`, unless the history remembers the ID of `once`. Returns its position then, and the entries of the log
    /// there; `None` if the message was appended.
    pub(super) async fn append_once(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
        once: AppendOnce<'_>,
    ) -> Result<(Position, Option<Vec<LogEntry>>), Unavailable> {
        let (arguments, once_time) = (AppendArguments::new(retention), millis(once.time));
        let [epoch, position_time, frame, size, time] = arguments.with(frame);
        let args = [
            epoch,
            position_time,
            frame,
            size,
            time,
            once_time.as_bytes(),
        ];
        let [head, log] = self.keys_of(name);
        let keys = [head, log, self.keys.history_once(name, once.id)];
        let script = &self.append_once;
        let (epoch, offset, found): (String, u64, _) =
            self.commands.run_script(script, &keys, &args).await?;
        Ok((position(&epoch, offset)?, found))
    }

    /// The position of a history, which is created if there is none.
    pub(super) async fn open(
        &self,
        name: HistoryName<'_>,
        retention: Retention,
    ) -> Result<Position, Unavailable> {
        let epoch = new_epoch();
        let time = millis(retention.position_time());
        let args = [epoch.as_str().as_bytes(), time.as_bytes()];
        self.position_after(&self.open, name, &args).await
    }

    /// Begins another epoch if the current one is `epoch`.
    pub(super) async fn reset(
        &self,
        name: HistoryName<'_>,
        epoch: &Epoch,
        retention: Retention,
    ) -> Result<(), Unavailable> {
        let next = new_epoch();
        let time = millis(retention.position_time());
        let args = [
            epoch.as_str().as_bytes(),
            next.as_str().as_bytes(),
            time.as_bytes(),
        ];
        let keys = self.keys_of(name);
        self.commands.run_script(&self.reset, &keys, &args).await
    }

    async fn position_after(
        &self,
        script: &Script,
        name: HistoryName<'_>,
        args: &[&[u8]],
    ) -> Result<Position, Unavailable> {
        let keys = self.keys_of(name);
        let (epoch, offset): (String, u64) = self.commands.run_script(script, &keys, args).await?;
        position(&epoch, offset)
    }

    fn keys_of(&self, name: HistoryName<'_>) -> [String; 2] {
        [self.keys.history_head(name), self.keys.history_log(name)]
    }
}

impl AppendArguments {
    fn new(retention: Retention) -> Self {
        Self {
            epoch: new_epoch(),
            position_time: millis(retention.position_time()),
            size: retention.size.to_string(),
            time: millis(retention.time),
        }
    }

    /// `ARGV[1]` to `ARGV[5]` of the scripts.
    fn with<'a>(&'a self, frame: &'a Frame) -> [&'a [u8]; 5] {
        [
            self.epoch.as_str().as_bytes(),
            self.position_time.as_bytes(),
            frame.as_str().as_bytes(),
            self.size.as_bytes(),
            self.time.as_bytes(),
        ]
    }
}

fn position(epoch: &str, offset: u64) -> Result<Position, Unavailable> {
    let epoch = Epoch::parse(epoch)
        .ok_or_else(|| Unavailable::new("Redis returned a malformed epoch of a history"))?;
    Ok(Position { epoch, offset })
}

/// A time until a key expires, in the form for Redis.
pub(super) fn millis(time: Duration) -> String {
    time.min(EXPIRY_MAX).as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::OFFSET_MAX;

    use super::*;

    #[test]
    fn offsets_stop_at_the_largest_number_that_clients_represent_exactly() {
        let bound = format!("tonumber(last) < {OFFSET_MAX}\n");
        for script in [APPEND, APPEND_ONCE, OPEN] {
            assert!(script.contains(&bound));
        }
    }

    #[test]
    fn no_time_is_too_long_for_redis() {
        assert_eq!(millis(Duration::from_millis(1_500)), "1500");
        assert_eq!(millis(Duration::MAX), "31536000000000");
    }
}
