//! Repeated failures leave nothing behind.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    both,
    faults::{FAULTS, Fault},
    malformed,
};
use crate::{guests::component, harness::Client, logged::Logged};

/// Clients that make plugins misbehave at the same time.
const CULPRITS: usize = 4;

/// Number of calls before the first measurement, and between the two measurements, over all faults together. Those that
/// use all their time take 10 ms of CPU each, so ten thousand of each would take minutes: `TEST_HOSTILE_CALLS=500000`
/// makes that many of each.
fn calls() -> (usize, usize) {
    let calls = std::env::var("TEST_HOSTILE_CALLS").map_or(10_000, |calls| {
        calls
            .parse()
            .expect("TEST_HOSTILE_CALLS is a number of calls")
    });
    (calls / 5, calls)
}

/// Triggers the fault, whatever the answer.
async fn commit(client: &mut Client, fault: &Fault) {
    client.send(&fault.message().to_string()).await;
    loop {
        let answer = client.json().await;
        if answer["type"] == "ack" || answer["type"] == "error" {
            return;
        }
    }
}

/// The number of files that a process has open.
fn open_files(server: &Logged) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.id()));
    files.expect("/proc is readable").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_faults_leave_no_memory_and_no_open_file_behind() {
    let files: [(&str, &[u8]); 2] = [
        ("hostile.wasm", &component("hostile")),
        ("malformed.wasm", &malformed::in_calls()),
    ];
    let server = Logged::start(&files, &both("memory_max = \"16MiB\"\n")).await;
    let commit_all = async |calls: usize| {
        let number = Arc::<AtomicUsize>::default();
        let culprits = (0..CULPRITS).map(|culprit| {
            let (server, number) = (&server, number.clone());
            async move {
                let mut client = server.client(&format!("culprit{culprit}")).await;
                loop {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    if number >= calls {
                        return client.close().await;
                    }
                    commit(&mut client, &FAULTS[number % FAULTS.len()]).await;
                }
            }
        });
        futures_util::future::join_all(culprits).await;
        (server.resident_bytes(), open_files(&server))
    };
    let (first, second) = calls();
    let (early, early_files) = commit_all(first).await;
    let (late, late_files) = commit_all(second).await;
    println!(
        "after {first} faults {early} bytes resident and {early_files} files open, {second} later {late} and {late_files}"
    );
    assert!(
        late < early + early / 4 + (8 << 20),
        "{early} bytes grew to {late}"
    );
    assert!(
        late_files < early_files + 16,
        "{early_files} open files became {late_files}"
    );
    // Each failed instance was dropped and counted.
    for plugin in ["hostile", "malformed"] {
        let metric = format!("wss_plugin_instances{{plugin=\"{plugin}\"}} ");
        server
            .until_metric(&metric, |instances| instances <= 16.0)
            .await;
    }
}
