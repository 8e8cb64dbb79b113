//! Injects one failure after another until the time is over.
//!
//! Nodes are restarted only in the first half. In the second half, their memory at its beginning is compared with their
//! memory at its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::crowd;
use super::people::World;
use super::processes::{Node, Redis, until_all_ready};
use super::say;

/// Pause between two failures.
const PAUSE: Duration = Duration::from_secs(4);

/// How long the misbehaving clients run, and how long logs are not read.
const BOTHER: Duration = Duration::from_secs(15);

/// How long before Redis is killed, and after it is back, messages in flight may be lost with it.
const OUTAGE_BEFORE_MS: u32 = 2_000;
const OUTAGE_AFTER: Duration = Duration::from_secs(5);

/// Pause before memory is first read, so that the effects of the restarts have passed.
const SETTLE: Duration = Duration::from_secs(5);

/// The file of the plugin, which the nodes watch.
pub(super) struct PluginFile {
    component: Vec<u8>,
    folder: PathBuf,
}

impl PluginFile {
    /// `chat.wasm` in `folder`, which contains `component`.
    pub(super) fn new(component: Vec<u8>, folder: &Path) -> Self {
        Self {
            component,
            folder: folder.to_owned(),
        }
    }

    /// Replaces it with another version of the same code.
    pub(super) fn replace(&self, version: u32) -> anyhow::Result<()> {
        let mut component = self.component.clone();
        // A custom section named `soak` makes this another version.
        component.extend([0, 9, 4]);
        component.extend(b"soak");
        component.extend(version.to_le_bytes());
        let new = self.folder.join("chat.new");
        fs::write(&new, component)?;
        fs::rename(new, self.folder.join("chat.wasm"))?;
        Ok(())
    }
}

/// The storm and its counters.
pub(super) struct Storm {
    world: Arc<World>,
    plugin: PluginFile,
    pub(super) swaps: u32,
    pub(super) restarts: u32,
    pub(super) redis_restarts: u32,
    /// The longest time that a node took to shut down.
    pub(super) longest_stop: Duration,
    /// Start and end of each Redis outage, in milliseconds since the beginning.
    pub(super) outages: Vec<(u32, u32)>,
    /// The memory of each node after the last restart, in bytes.
    pub(super) memory: Vec<u64>,
}

impl Storm {
    pub(super) fn new(world: Arc<World>, plugin: PluginFile) -> Self {
        Self {
            world,
            plugin,
            swaps: 0,
            restarts: 0,
            redis_restarts: 0,
            longest_stop: Duration::ZERO,
            outages: Vec::new(),
            memory: Vec::new(),
        }
    }

    /// Injects failures until `end`.
    pub(super) async fn rage(
        &mut self,
        nodes: &mut [Node],
        redis: &mut Redis,
        end: Instant,
    ) -> anyhow::Result<()> {
        let half = Instant::now() + end.saturating_duration_since(Instant::now()) / 2;
        let mut round = 0;
        while Instant::now() < end {
            let is_first_half = Instant::now() < half;
            if !is_first_half && self.memory.is_empty() {
                // Run all kinds of load once first, so that the memory for them is already allocated.
                self.bother().await;
                self.swap()?;
                sleep(SETTLE).await;
                self.memory = nodes.iter().map(Node::memory).collect::<Result<_, _>>()?;
            }
            match round % 6 {
                0 => self.move_many(),
                1 => self.swap()?,
                2 if is_first_half => self.restart(nodes).await?,
                3 => self.restart_redis(nodes, redis).await?,
                4 => self.stall_logs(nodes).await?,
                5 => self.bother().await,
                _ => {}
            }
            round += 1;
            sleep(PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
        }
        Ok(())
    }

    /// Makes a tenth of the clients move at once.
    fn move_many(&self) {
        say(&self.world, "a tenth of the clients moves");
        self.world.wave.send_modify(|wave| *wave += 1);
    }

    /// Replaces the serving plugin with another version.
    fn swap(&mut self) -> anyhow::Result<()> {
        say(&self.world, "the plugin is swapped");
        self.swaps += 1;
        self.plugin.replace(self.swaps)
    }

    /// Stops each node as a deployment does, and starts it again.
    async fn restart(&mut self, nodes: &mut [Node]) -> anyhow::Result<()> {
        for node in nodes {
            say(&self.world, &format!("node {} restarts", node.name));
            let took = node.stop().await?;
            self.longest_stop = self.longest_stop.max(took);
            self.restarts += 1;
            node.start().await?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Kills Redis, and starts it again empty.
    async fn restart_redis(&mut self, nodes: &mut [Node], redis: &mut Redis) -> anyhow::Result<()> {
        say(&self.world, "Redis is killed");
        self.redis_restarts += 1;
        self.world.is_outage.store(true, Ordering::Relaxed);
        let from = self.world.now_ms().saturating_sub(OUTAGE_BEFORE_MS);
        redis.interrupt(false).await?;
        until_all_ready(nodes).await?;
        sleep(OUTAGE_AFTER).await;
        self.outages.push((from, self.world.now_ms()));
        self.world.is_outage.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Stops reading the logs while there is something to log.
    async fn stall_logs(&mut self, nodes: &[Node]) -> anyhow::Result<()> {
        say(&self.world, "nobody reads the logs");
        nodes.iter().for_each(|node| node.stall_log(true));
        self.swap()?;
        self.bother().await;
        nodes.iter().for_each(|node| node.stall_log(false));
        Ok(())
    }

    /// Runs the misbehaving clients for a while.
    async fn bother(&self) {
        say(&self.world, "bad neighbours come");
        let neighbours = crowd::bother(&self.world.nodes);
        sleep(BOTHER).await;
        drop(neighbours);
    }
}
