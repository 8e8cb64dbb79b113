//! The nodes of the cluster: a set of the IDs of all that have a lease, and of some that had one.

use redis::{Cmd, Value};
use signalbox_redis_client::{Commands, Unavailable};
use tracing::debug;

use super::keys::KeyNames;

/// Adds this server to the set. Called with each renewal of the lease, because Redis may lose the entry. A failure costs no
/// message, so it does not end the lease.
pub(super) async fn announce(commands: &Commands, keys: &KeyNames) {
    let add = on_set("SADD", keys, &[keys.own_id()]);
    if let Err(error) = commands.run::<()>(&add).await {
        debug!(%error, "this server is not in the list of nodes");
    }
}

/// Takes this server out of the set.
pub(super) async fn withdraw(commands: &Commands, keys: &KeyNames) {
    let remove = on_set("SREM", keys, &[keys.own_id()]);
    if let Err(error) = commands.run::<()>(&remove).await {
        debug!(%error, "this server stays in the list of nodes until another node notices that its lease is gone");
    }
}

/// The servers that have a lease, sorted. Those that have none are taken out of the set: they never come back.
pub(super) async fn living(
    commands: &Commands,
    keys: &KeyNames,
) -> Result<Vec<String>, Unavailable> {
    let mut members = redis::cmd("SMEMBERS");
    members.arg(keys.nodes());
    let servers: Vec<String> = commands.run(&members).await?;
    let lease = |server: &String| {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(keys.lease(server));
        exists
    };
    let leases = commands
        .run_all(servers.iter().map(lease).collect())
        .await?;
    let (mut alive, mut dead) = (Vec::new(), Vec::new());
    for (server, lease) in servers.into_iter().zip(leases) {
        let side = if lease == Value::Int(1) {
            &mut alive
        } else {
            &mut dead
        };
        side.push(server);
    }
    if !dead.is_empty() {
        debug!(
            ?dead,
            "servers without a lease are removed from the list of nodes"
        );
        let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
        // If that fails, the next caller does it.
        let _ = commands.run::<()>(&on_set("SREM", keys, &dead)).await;
    }
    alive.sort();
    Ok(alive)
}

fn on_set(command: &str, keys: &KeyNames, servers: &[&str]) -> Cmd {
    let mut command = redis::cmd(command);
    command.arg(keys.nodes());
    command.arg(servers);
    command
}
