//! All members of a room come at once, and ask for its users.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::bail;
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::{BurstReport, Member, Meter, connect};

/// Options of `signalbox-bench presence`.
#[derive(Debug, Clone, Args)]
pub struct PresenceArgs {
    /// The server, whose room `bench` has presence
    #[arg(long)]
    server: SocketAddr,
    /// The process of the server
    #[arg(long)]
    cpu_pid: u32,
    /// The number of members
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
}

impl PresenceArgs {
    /// Runs it once: the members are connected, join at once, and each reads until it knows them all.
    ///
    /// # Errors
    /// Returns an error if a member cannot join, or gets contradictions.
    pub async fn run(&self) -> anyhow::Result<BurstReport> {
        let members = connect(self.server, self.clients as usize).await?;
        let meter = Meter::start(self.cpu_pid, None).await?;
        let joining = members.into_iter().map(|member| self.join(member));
        let clients = try_join_all(joining).await?;
        let counts = clients
            .iter()
            .map(|(member, frames)| (member.bytes, *frames));
        let counts: Vec<_> = counts.collect();
        // The members stay until here: one that leaves would be reported too.
        meter.stop(&counts).await
    }

    /// Joins, and reads until all members are known. Returns the number of `presence` frames.
    async fn join(&self, mut member: Member) -> anyhow::Result<(Member, u64)> {
        member.bytes = 0;
        member.send("join", &json!({"presence": true}))?;
        let mut known = BTreeSet::new();
        let mut frames = 0;
        while known.len() < self.clients as usize {
            let frame = member.next().await?;
            match frame["type"].as_str() {
                Some("error") => bail!("a join got {frame}"),
                Some("presence") => {
                    frames += 1;
                    learn(&mut known, &frame["payload"])?;
                }
                _ => {}
            }
        }
        Ok((member, frames))
    }
}

/// Adds the users who are new to those that are known.
fn learn(known: &mut BTreeSet<String>, payload: &Value) -> anyhow::Result<()> {
    if payload["members"].is_array() {
        known.clear();
    }
    for list in [&payload["members"], &payload["joined"]] {
        for user in list.as_array().into_iter().flatten() {
            let user = user["userId"].as_str().unwrap_or_default();
            if !known.insert(user.to_owned()) {
                bail!("{user} came twice: {payload}");
            }
        }
    }
    if payload["total"] != known.len() || !payload["left"].is_null() {
        bail!("{} members are known, and then {payload}", known.len());
    }
    Ok(())
}
