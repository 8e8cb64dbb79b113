//! A cluster of three masters with one replica each.

use std::time::Duration;

use futures_util::future::join_all;
use redis::cluster_async::ClusterConnection;

use super::{
    FAILOVER_AFTER, NO_FAILOVER,
    connections::cluster_client,
    server::{Options, Server},
    wait::until,
};

const MASTERS: usize = 3;
const NODES: usize = 2 * MASTERS;
const SLOTS: usize = 16_384;

const NODE_TIMEOUT: &str = "cluster-node-timeout";

/// The settings of every node. Replicas stay with their masters, so that a test knows which one takes over. All other
/// settings are the defaults of Redis, so all slots are down while one of them has no master.
const SETTINGS: [&str; 5] = [
    "cluster-enabled yes",
    "cluster-config-file nodes.conf",
    "cluster-allow-replica-migration no",
    "cluster-replica-validity-factor 0",
    "repl-diskless-sync-delay 0",
];

/// Six servers that share the keys. At first the first three are the masters, each with a third of the slots in order;
/// the replica of each is the server three places later.
pub(crate) struct Cluster {
    nodes: Vec<Server>,
    /// The node IDs, which the nodes chose themselves.
    ids: Vec<String>,
}

/// One node as seen by another: a line of `CLUSTER NODES`.
struct Seen {
    id: String,
    is_well: bool,
    is_myself: bool,
    /// The ID of its master, if it is a replica.
    master: Option<String>,
    slots: Vec<(u16, u16)>,
    is_moving_slots: bool,
}

impl Cluster {
    /// A cluster without failover, until a test allows it.
    pub(crate) async fn start() -> Self {
        let mut settings = SETTINGS.map(str::to_owned).to_vec();
        settings.push(format!("{NODE_TIMEOUT} {}", NO_FAILOVER.as_millis()));
        let options = Options {
            settings,
            ..Options::default()
        };
        let nodes: Vec<Server> =
            join_all((0..NODES).map(|_| Server::start_with(options.clone()))).await;
        let ids = join_all(nodes.iter().map(|node| node.command(&["CLUSTER", "MYID"]))).await;
        let cluster = Self { nodes, ids };
        cluster.introduce().await;
        cluster.until_settled().await;
        for node in &cluster.nodes {
            node.reset_commandstats().await;
        }
        cluster
    }

    /// Lets replicas take over. Call it right before or after the fault, and [`Self::forbid_failover`] once the cluster
    /// has settled.
    pub(crate) async fn allow_failover(&self) {
        self.set_node_timeout(FAILOVER_AFTER).await;
    }

    /// From now on every master keeps its place, however long a busy machine keeps it from answering.
    pub(crate) async fn forbid_failover(&self) {
        self.set_node_timeout(NO_FAILOVER).await;
    }

    /// Sets the timeout of all nodes that are up.
    async fn set_node_timeout(&self, time: Duration) {
        let millis = time.as_millis().to_string();
        for node in self.nodes.iter().filter(|node| node.is_up()) {
            node.command::<()>(&["CONFIG", "SET", NODE_TIMEOUT, &millis])
                .await;
        }
    }

    /// All addresses, separated by commas.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(Server::url).collect();
        urls.join(",")
    }

    /// A client that knows all nodes.
    pub(crate) async fn connect(&self) -> ClusterConnection {
        cluster_client(&self.urls())
            .get_async_connection()
            .await
            .expect("the cluster accepts clients")
    }

    pub(crate) fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// The slot of a key or channel.
    pub(crate) async fn slot_of(&self, key: &str) -> u16 {
        let node = self.some_node();
        node.command(&["CLUSTER", "KEYSLOT", key]).await
    }

    /// The node that is the master of a slot.
    pub(crate) async fn master_of(&self, slot: u16) -> usize {
        let owners = self.owners(&self.view(self.some_node()).await);
        owners[usize::from(slot)].expect("every slot has a master")
    }

    /// The node that is the replica of a master, or None if the master has no other node left.
    pub(crate) async fn replica_of(&self, master: usize) -> Option<usize> {
        let nodes: Vec<String> = self
            .some_node()
            .command(&["CLUSTER", "REPLICAS", &self.ids[master]])
            .await;
        let replicas = nodes.iter().map(|line| self.index_of(&seen(line).id));
        replicas
            .into_iter()
            .find(|index| self.nodes[*index].is_up())
    }

    /// Kills a node, as in a crash.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].kill9();
    }

    /// Starts a node again. It keeps its identity in the cluster, but no keys.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.nodes[node].restart_empty().await;
    }

    /// Stops a node with SIGSTOP: its connections stay open, and it answers nothing.
    pub(crate) fn stop(&mut self, node: usize) {
        self.nodes[node].stop();
    }

    /// Continues a stopped node.
    pub(crate) fn cont(&mut self, node: usize) {
        self.nodes[node].cont();
    }

    /// Waits until all nodes that are up agree on the masters of all slots, those masters are up, and all other nodes
    /// that are up replicate one of them. After the death of a master, this waits for the failover.
    pub(crate) async fn until_settled(&self) {
        until("the nodes of the cluster agree", async || {
            let mut agreed = None;
            for node in self.nodes.iter().filter(|node| node.is_up()) {
                let info: String = node.try_command(&["CLUSTER", "INFO"]).await.ok()?;
                let view = self.view(node).await;
                let owners = self.owners(&view);
                let is_settled = info.contains("cluster_state:ok")
                    && self.all_is_well(&view)
                    && self.are_up(&owners)
                    && self.others_are_replicas(&view)
                    && *agreed.get_or_insert_with(|| owners.clone()) == owners
                    && follows_its_master(node, &view).await;
                if !is_settled {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// Moves a slot with its keys to another master, as operators do while clients are connected.
    pub(crate) async fn move_slot(&self, slot: u16, to: usize) {
        let from = self.master_of(slot).await;
        if from == to {
            return;
        }
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let slot = slot.to_string();
        let set_slot = |state: &'static str, of: usize| {
            ["CLUSTER", "SETSLOT", &slot, state, &self.ids[of]].map(str::to_owned)
        };
        let tell = async |node: &Server, words: [String; 5]| {
            let words = words.each_ref().map(String::as_str);
            node.command::<()>(&words).await;
        };
        tell(target, set_slot("IMPORTING", from)).await;
        tell(source, set_slot("MIGRATING", to)).await;
        let port = target.port().to_string();
        loop {
            let keys: Vec<String> = source
                .command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])
                .await;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            source.command::<()>(&words).await;
        }
        // The target first: if the source went first and died, no node would own the slot.
        tell(target, set_slot("NODE", to)).await;
        tell(source, set_slot("NODE", to)).await;
        self.until_settled().await;
    }

    /// Joins the separate nodes into a cluster.
    async fn introduce(&self) {
        for (index, master) in self.nodes.iter().take(MASTERS).enumerate() {
            let bound = |index: usize| SLOTS * index / MASTERS;
            let (first, last) = (bound(index), bound(index + 1) - 1);
            let (first, last) = (first.to_string(), last.to_string());
            master
                .command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])
                .await;
            let epoch = (index + 1).to_string();
            master
                .command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
        }
        // Introduce each node to every other directly, which is immediate; gossip would take seconds.
        for (index, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[..index] {
                let port = other.port().to_string();
                node.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port])
                    .await;
            }
        }
        until("all nodes of the cluster know each other", async || {
            for node in &self.nodes {
                if !self.all_is_well(&self.view(node).await) {
                    return None;
                }
            }
            Some(())
        })
        .await;
        for (index, replica) in self.nodes.iter().enumerate().skip(MASTERS) {
            let master = &self.ids[index - MASTERS];
            replica
                .command::<()>(&["CLUSTER", "REPLICATE", master])
                .await;
        }
    }

    fn some_node(&self) -> &Server {
        let up = self.nodes.iter().find(|node| node.is_up());
        up.expect("a node is up")
    }

    fn index_of(&self, id: &str) -> usize {
        let index = self.ids.iter().position(|other| other == id);
        index.expect("a node of this cluster")
    }

    /// The cluster as a node sees it; empty while the node does not answer.
    async fn view(&self, node: &Server) -> Vec<Seen> {
        let text: String = node
            .try_command(&["CLUSTER", "NODES"])
            .await
            .unwrap_or_default();
        text.lines().map(seen).collect()
    }

    /// Whether all nodes that are up are listed, none of them is suspected of failure, and no slot is migrating.
    fn all_is_well(&self, view: &[Seen]) -> bool {
        let is_seen = |(id, node): (&String, &Server)| {
            !node.is_up() || view.iter().any(|seen| seen.id == *id && seen.is_well)
        };
        view.len() == NODES
            && self.ids.iter().zip(&self.nodes).all(is_seen)
            && !view.iter().any(|seen| seen.is_moving_slots)
    }

    /// Whether every slot has a master that is up.
    fn are_up(&self, owners: &[Option<usize>]) -> bool {
        let mut owners = owners.to_vec();
        owners.dedup();
        let is_up = |owner: Option<usize>| owner.is_some_and(|index| self.nodes[index].is_up());
        owners.into_iter().all(is_up)
    }

    /// The index of the master of each slot.
    fn owners(&self, view: &[Seen]) -> Vec<Option<usize>> {
        let mut owners = vec![None; SLOTS];
        for seen in view {
            for (first, last) in &seen.slots {
                owners[usize::from(*first)..=usize::from(*last)]
                    .fill(Some(self.index_of(&seen.id)));
            }
        }
        owners
    }

    /// Whether every node that is up and has no slots is a replica of one that is up and has some.
    fn others_are_replicas(&self, view: &[Seen]) -> bool {
        let has_slots = |id: &String| {
            view.iter()
                .any(|seen| seen.id == *id && !seen.slots.is_empty())
        };
        view.iter()
            .filter(|seen| seen.slots.is_empty() && self.is_up(&seen.id))
            .all(|seen| {
                let master = seen.master.as_ref();
                master.is_some_and(|id| self.is_up(id) && has_slots(id))
            })
    }

    fn is_up(&self, id: &str) -> bool {
        let nodes = self.ids.iter().zip(&self.nodes);
        nodes
            .into_iter()
            .any(|(other, node)| other == id && node.is_up())
    }
}

async fn follows_its_master(node: &Server, view: &[Seen]) -> bool {
    let is_replica = |seen: &Seen| seen.is_myself && seen.master.is_some();
    if !view.iter().any(is_replica) {
        return true;
    }
    let info = node.try_command::<String>(&["INFO", "replication"]).await;
    info.is_ok_and(|info| info.contains("master_link_status:up"))
}

/// `<id> <ip:port@cport> <flags> <master> <ping-sent> <pong-recv> <config-epoch> <link-state> <slot> ...`
fn seen(line: &str) -> Seen {
    let fields: Vec<&str> = line.split(' ').collect();
    let [id, _, flags, master, _, _, _, link, slots @ ..] = fields.as_slice() else {
        panic!("not a line of CLUSTER NODES: {line}");
    };
    let has = |flag: &str| flags.split(',').any(|other| other == flag);
    let number = |text: &str| text.parse().expect("a slot is a number");
    Seen {
        id: (*id).to_owned(),
        is_well: *link == "connected"
            && !["fail", "fail?", "handshake", "noaddr"]
                .into_iter()
                .any(has),
        is_myself: has("myself"),
        master: has("slave").then(|| (*master).to_owned()),
        // A slot that is migrating is also listed, in brackets.
        slots: slots
            .iter()
            .filter(|range| !range.starts_with('['))
            .map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (number(first), number(last))
            })
            .collect(),
        is_moving_slots: slots.iter().any(|range| range.starts_with('[')),
    }
}
