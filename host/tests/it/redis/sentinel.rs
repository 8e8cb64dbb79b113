//! A master and a replica, watched by three sentinels.

use std::{collections::HashMap, time::Duration};

use super::{
    FAILOVER_AFTER, NO_FAILOVER,
    server::{Options, Server},
    wait::until,
};

/// The name of the master in the configuration of the sentinels.
const NAME: &str = "signalbox";

const SENTINELS: usize = 3;

const DOWN_AFTER: &str = "down-after-milliseconds";

/// How often the sentinels poll the servers and each other, in milliseconds, instead of every ten and two seconds.
const INFO_PERIOD: &str = "500";
const PUBLISH_PERIOD: &str = "250";

/// Two servers, the first of which is the initial master, and the sentinels.
pub(crate) struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Sentinels {
    /// Sentinels that have found each other and the replica, which follows the master.
    pub(crate) async fn start() -> Self {
        let master =
            Server::start_with(with_settings(vec!["repl-diskless-sync-delay 0".to_owned()])).await;
        let replica = Server::start_with(with_settings(vec![
            format!("replicaof 127.0.0.1 {}", master.port()),
            "repl-diskless-sync-delay 0".to_owned(),
        ]))
        .await;
        let servers = vec![master, replica];
        // The sentinels find the replica with their first poll, before the shorter interval is set.
        until("the replica follows the master", async || {
            follows(&servers[1], &servers[0]).await.then_some(())
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            sentinels.push(sentinel(&servers[0]).await);
        }
        let this = Self { servers, sentinels };
        this.until_agreed().await;
        for server in &this.servers {
            server.reset_commandstats().await;
        }
        this
    }

    /// The addresses of the sentinels, separated by commas.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> = self.sentinels.iter().map(Server::url).collect();
        urls.join(",")
    }

    /// The name by which the sentinels know the master.
    pub(crate) fn master_name(&self) -> &'static str {
        NAME
    }

    /// The server that the sentinels consider the master.
    pub(crate) async fn master(&self) -> &Server {
        let master = self.master_of(&self.sentinels[0]).await;
        &self.servers[master.expect("the sentinels know a master")]
    }

    /// Kills the master, as in a crash. The other server takes over once `before` has ended; waits until that is done.
    pub(crate) async fn kill_master(&mut self, before: impl Future<Output = ()>) {
        let master = self.master_of(&self.sentinels[0]).await;
        self.set_down_after(NO_FAILOVER).await;
        self.servers[master.expect("the sentinels know a master")].kill9();
        before.await;
        self.set_down_after(FAILOVER_AFTER).await;
        self.until_agreed().await;
    }

    async fn set_down_after(&self, time: Duration) {
        let millis = time.as_millis().to_string();
        for sentinel in &self.sentinels {
            let setting = ["SENTINEL", "SET", NAME, DOWN_AFTER, &millis];
            sentinel.command::<()>(&setting).await;
        }
    }

    /// Makes the sentinels promote the replica while both servers are up, and waits until that is done. The old master
    /// goes on accepting commands as a master for a while, until a sentinel demotes it.
    pub(crate) async fn fail_over(&self) {
        let before = self.master_of(&self.sentinels[0]).await;
        let order = ["SENTINEL", "FAILOVER", NAME];
        until("the sentinels name another master", async || {
            let now = self.master_of(&self.sentinels[0]).await;
            if now.is_some() && now != before {
                return Some(());
            }
            // Refused while a failover is in progress. A sentinel abandons one that takes too long, as on a busy machine.
            let _ = self.sentinels[0].try_command::<()>(&order).await;
            None
        })
        .await;
        self.until_agreed().await;
    }

    /// Restarts a killed server. It acts as a master until a sentinel demotes it.
    pub(crate) async fn restart_killed(&mut self) {
        for server in self.servers.iter_mut().filter(|server| !server.is_up()) {
            server.restart_empty().await;
        }
    }

    /// Waits until the server that is not the master replicates it.
    pub(crate) async fn until_replicated(&self) {
        until("the replica follows the master", async || {
            let master = self.master_of(&self.sentinels[0]).await?;
            let [replica, master] = [&self.servers[1 - master], &self.servers[master]];
            follows(replica, master).await.then_some(())
        })
        .await;
    }

    /// Waits until all sentinels know each other and name the same master, which is up and acts as one.
    async fn until_agreed(&self) {
        until("the sentinels agree on the master", async || {
            let master = self.master_of(&self.sentinels[0]).await?;
            for sentinel in &self.sentinels {
                if self.master_of(sentinel).await != Some(master) || !is_sure(sentinel).await {
                    return None;
                }
            }
            let role: (String, redis::Value, redis::Value) =
                self.servers[master].try_command(&["ROLE"]).await.ok()?;
            (role.0 == "master").then_some(())
        })
        .await;
    }

    /// The server that a sentinel names as the master, if it is up.
    async fn master_of(&self, sentinel: &Server) -> Option<usize> {
        let address: (String, u16) = sentinel
            .try_command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])
            .await
            .ok()?;
        self.servers
            .iter()
            .position(|server| server.port() == address.1 && server.is_up())
    }
}

/// Whether a sentinel considers the master healthy, and knows the other sentinels and the replica.
async fn is_sure(sentinel: &Server) -> bool {
    let info = sentinel
        .try_command::<HashMap<String, String>>(&["SENTINEL", "MASTER", NAME])
        .await;
    let others = (SENTINELS - 1).to_string();
    info.is_ok_and(|info| {
        let is = |field: &str, value: &str| info.get(field).is_some_and(|info| info == value);
        is("flags", "master") && is("num-other-sentinels", &others) && is("num-slaves", "1")
    })
}

async fn follows(replica: &Server, master: &Server) -> bool {
    let info = replica
        .try_command::<String>(&["INFO", "replication"])
        .await;
    info.is_ok_and(|info| {
        info.contains("master_link_status:up")
            && info.contains(&format!("master_port:{}\r\n", master.port()))
    })
}

async fn sentinel(master: &Server) -> Server {
    let port = master.port();
    let sentinel = Server::start_with(Options {
        settings: vec![
            format!("sentinel monitor {NAME} 127.0.0.1 {port} 2"),
            format!(
                "sentinel {DOWN_AFTER} {NAME} {}",
                FAILOVER_AFTER.as_millis()
            ),
            // A failed failover is retried after twice this time.
            format!("sentinel failover-timeout {NAME} 3000"),
        ],
        is_sentinel: true,
        ..Options::default()
    })
    .await;
    for (name, period) in [
        ("info-period", INFO_PERIOD),
        ("publish-period", PUBLISH_PERIOD),
    ] {
        sentinel
            .command::<()>(&["SENTINEL", "DEBUG", name, period])
            .await;
    }
    sentinel
}

fn with_settings(settings: Vec<String>) -> Options {
    Options {
        settings,
        ..Options::default()
    }
}
