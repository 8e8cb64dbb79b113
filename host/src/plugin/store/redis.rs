//! Values in Redis, shared by all nodes.
//!
//! The keys of plugin `p` begin with `plugin_store:{p}:` behind the configured prefix. The braces put them into one slot
//! of a cluster, so that one script may touch all that it needs; what a plugin is called is escaped in between, so that
//! no name and no key can spell a key of another plugin. They are
//!
//! - `value:KEY`: the bytes of one value. If it has a time to live, Redis itself removes it.
//! - `lasting`: how many bytes the values and keys take up that are kept for good, with [`ENTRY_BYTES`](super::ENTRY_BYTES) for each.
//! - `passing`: the values that are not, as a sorted set of `SIZE:KEY` by the end of their time, and their sum.
//!
//! Why two accounts: Redis tells nobody that a value's time is over, so each write strikes the oldest that are over off
//! `passing`, 16 at most, and up to 1,000 more where it would else be refused for want of room. If even those were not all,
//! it is asked again: no single call holds Redis up for long, and what is over never counts against what is new. `passing`
//! has itself a time, a moment longer than that of the last value in it, and takes its sum along: a plugin that is gone
//! for good leaves nothing behind but what it wanted to be kept for good. Nothing ever scans the keys.
//!
//! The sums are right as long as Redis drops nothing by itself: an eviction policy of `noeviction` or `volatile-*`, as for
//! every other key of this server. An evicted value with a time counts until that is over; one without would count
//! until the key is written again.
//!
//! Every change is one script, and so atomic; reading is a plain `GET`. A script costs the server 8 to 12 µs of its one CPU
//! with values of 100 bytes, a `GET` 0.4 µs. Whether a value has a time is asked of Redis each
//! time (`PTTL`), never concluded from the accounts, so these cannot drift.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;

use super::{Entry, PluginStore, StoreError};
use crate::redis_client::{Commands, Script, Unavailable};

/// A [`PluginStore`] that all nodes share.
pub struct RedisStore {
    commands: Commands,
    prefix: String,
    write: Script,
    increment: Script,
    remove: Script,
}

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(
            include_str!("redis/common.lua"),
            include_str!(concat!("redis/", $name, ".lua"))
        ))
    };
}

/// When a value may be written.
#[derive(Clone, Copy)]
enum Condition<'a> {
    Always,
    Absent,
    Equal(&'a [u8]),
}

impl RedisStore {
    /// A store over a link of its own: a plugin that moves much must not hold up what nodes say to each other. Every key
    /// begins with `prefix`.
    pub fn new(commands: Commands, prefix: &str) -> Self {
        Self {
            commands,
            prefix: prefix.to_owned(),
            write: script!("write"),
            increment: script!("increment"),
            remove: script!("remove"),
        }
    }

    async fn write(
        &self,
        plugin: &str,
        bytes_max: usize,
        condition: Condition<'_>,
        entry: Entry<'_>,
    ) -> Result<bool, StoreError> {
        let (condition, expected) = match condition {
            Condition::Always => ("always", &b""[..]),
            Condition::Absent => ("absent", &b""[..]),
            Condition::Equal(expected) => ("equal", expected),
        };
        let (bytes_max, ttl) = (bytes_max.to_string(), millis(entry.ttl));
        let args = [
            entry.key.as_bytes(),
            bytes_max.as_bytes(),
            entry.value,
            ttl.as_bytes(),
            condition.as_bytes(),
            expected,
        ];
        let answer = self
            .run(&self.write, &self.keys(plugin, entry.key), &args)
            .await?;
        match status(&answer) {
            "differs" => Ok(false),
            status => accepted(status).map(|()| true),
        }
    }

    fn keys(&self, plugin: &str, key: &str) -> [String; 3] {
        let start = format!("{}plugin_store:{{{}}}:", self.prefix, escaped(plugin));
        [
            format!("{start}value:{key}"),
            format!("{start}lasting"),
            format!("{start}passing"),
        ]
    }

    /// Runs a script until it has struck off all that it must, or until the time of a command is over. Returns a status,
    /// and what else it says.
    async fn run(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Vec<String>, StoreError> {
        let rounds = async {
            loop {
                let answer: Vec<String> = self.commands.run_script(script, keys, args).await?;
                if status(&answer) != "again" {
                    return Ok(answer);
                }
            }
        };
        let done = timeout(self.commands.timeout(), rounds).await;
        done.unwrap_or(Err(StoreError::Unavailable))
    }
}

fn status(answer: &[String]) -> &str {
    answer.first().map_or("", String::as_str)
}

fn accepted(status: &str) -> Result<(), StoreError> {
    match status {
        "ok" => Ok(()),
        "full" => Err(StoreError::TooLarge),
        "not-a-number" => Err(StoreError::NotANumber),
        _ => Err(StoreError::Unavailable),
    }
}

fn millis(ttl: Option<Duration>) -> String {
    ttl.map(|ttl| ttl.as_millis().to_string())
        .unwrap_or_default()
}

/// `name` without a brace or colon, never empty, and never the same for two names: what is between the braces alone says
/// to which slot a key belongs, unless there is nothing.
fn escaped(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '%' => text.push_str("%25"),
            '{' => text.push_str("%7B"),
            '}' => text.push_str("%7D"),
            ':' => text.push_str("%3A"),
            other => text.push(other),
        }
    }
    text
}

impl From<Unavailable> for StoreError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl PluginStore for RedisStore {
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        async move {
            let [value, ..] = self.keys(plugin, key);
            Ok(self.commands.run(redis::cmd("GET").arg(value)).await?)
        }
        .boxed()
    }

    fn set<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        entry: Entry<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.write(plugin, bytes_max, Condition::Always, entry)
                .await
                .map(drop)
        }
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let keys = self.keys(plugin, key);
            let answer = self.run(&self.remove, &keys, &[key.as_bytes()]).await?;
            accepted(status(&answer))
        }
        .boxed()
    }

    fn increment<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        key: &'a str,
        by: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<i64, StoreError>> {
        async move {
            let (bytes_max, by, ttl) = (bytes_max.to_string(), by.to_string(), millis(ttl));
            let args = [
                key.as_bytes(),
                bytes_max.as_bytes(),
                by.as_bytes(),
                ttl.as_bytes(),
            ];
            let answer = self
                .run(&self.increment, &self.keys(plugin, key), &args)
                .await?;
            accepted(status(&answer))?;
            let sum = answer.get(1).and_then(|sum| sum.parse().ok());
            sum.ok_or(StoreError::Unavailable)
        }
        .boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        plugin: &'a str,
        bytes_max: usize,
        expected: Option<&'a [u8]>,
        entry: Entry<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let condition = expected.map_or(Condition::Absent, Condition::Equal);
        self.write(plugin, bytes_max, condition, entry).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_count_what_the_other_store_counts() {
        let line = format!("local ENTRY_BYTES = {}\n", super::super::ENTRY_BYTES);
        assert!(include_str!("redis/common.lua").contains(&line));
    }

    #[test]
    fn no_plugins_name_can_spell_a_key_of_another() {
        let names = ["p", "p}", "{p", "p:value", "p%7D", "%", ""];
        for (index, name) in names.iter().enumerate() {
            let escaped_name = escaped(name);
            assert!(!escaped_name.is_empty() && !escaped_name.contains(['{', '}', ':']));
            for other in &names[..index] {
                assert_ne!(escaped(name), escaped(other));
            }
        }
    }
}
