//! The memory of 1,000 connected clients: `cargo run --release -p signalbox-client --example memory ws://127.0.0.1:8080/ws
//! [COUNT]`. The server needs `auth.mode = "none"`. Each client joins one room, which needs no rule.

use std::error::Error;

use signalbox_client::{Client, JoinOptions, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("name the URL of a server")?;
    let count: u32 = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
    let before = resident()?;
    let mut clients = Vec::new();
    for number in 0..count {
        let (client, events) = Client::new(Options::user(&url, format!("user-{number}")))?;
        client.connect().await;
        let room = format!("room-{number}");
        client.join(&room, JoinOptions::default()).await?;
        clients.push((client, events));
    }
    let after = resident()?;
    let used = after - before;
    println!(
        "{count} clients, {:.1} MiB, {:.1} KiB each, whole process {:.1} MiB",
        used / 1024.0,
        used / f64::from(count),
        after / 1024.0
    );
    for (client, _) in clients {
        client.close().await;
    }
    Ok(())
}

/// The resident memory of this process in KiB.
fn resident() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS in /proc/self/status")?.parse()?)
}
