//! All members of a room lose their connections, and recover the missed messages at once.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::future::try_join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{BurstReport, Member, Meter, connect};

/// Options of `signalbox-bench recovery`.
#[derive(Debug, Clone, Args)]
pub struct RecoveryArgs {
    /// The node that the members are on at first
    #[arg(long)]
    from: SocketAddr,
    /// The process of that node, which is killed; without it the members break their connections themselves
    #[arg(long)]
    kill: Option<u32>,
    /// The node on which they recover
    #[arg(long)]
    to: SocketAddr,
    /// The process of the node on which they recover
    #[arg(long)]
    cpu_pid: u32,
    /// Redis, for its statistics
    #[arg(long)]
    redis: Option<SocketAddr>,
    /// The number of members
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// The number of messages that each of them missed; the history must keep them
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=300))]
    messages: u32,
}

impl RecoveryArgs {
    /// Runs it once.
    ///
    /// # Errors
    /// Returns an error if a member cannot join, or gets anything but the missed messages, each once and in order.
    pub async fn run(&self) -> anyhow::Result<BurstReport> {
        let mut speaker = Member::connect(self.to, "speaker").await?;
        speaker.join(&Value::Null).await?;
        let mut members = connect(self.from, self.clients as usize).await?;
        let mut places = Vec::with_capacity(members.len());
        for member in &mut members {
            places.push(member.join(&Value::Null).await?["room"].take());
        }
        if let Some(pid) = self.kill {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            kill_process(pid.context("--kill is not a process")?, Signal::KILL)?;
        }
        drop(members);
        let text = "x".repeat(128);
        for _ in 0..self.messages {
            speaker.send("chat_message", &json!({"text": text}))?;
            while speaker.next().await?["type"] != "ack" {}
        }
        let meter = Meter::start(self.cpu_pid, self.redis).await?;
        let recovering = places.into_iter().enumerate();
        let recovering = recovering.map(|(index, place)| self.recover(index, place));
        let clients = try_join_all(recovering).await?;
        meter.stop(&clients).await
    }

    /// Connects a member again, and reads the missed messages. Returns the bytes, and the number of messages.
    async fn recover(&self, index: usize, place: Value) -> anyhow::Result<(u64, u64)> {
        let mut member = Member::connect(self.to, &format!("member{index}")).await?;
        let since = json!({"since": {"epoch": place["epoch"], "offset": place["offset"]}});
        let room = member.join(&since).await?["room"].take();
        if room["recovered"] != true || room["count"] != self.messages {
            bail!("a member did not recover: {room}");
        }
        let first = place["offset"].as_u64().context("a place has an offset")? + 1;
        let mut next = first;
        while next < first + u64::from(self.messages) {
            let message = member.next().await?;
            if message["offset"] != next {
                bail!("a member got {message} instead of number {next}");
            }
            next += 1;
        }
        Ok((member.bytes, next - first))
    }
}
