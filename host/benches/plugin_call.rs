//! What a call to a plugin costs on one thread with nothing else going on: `cargo bench -p signalbox --bench plugin_call`.
//!
//! Prints the median of several rounds in nanoseconds for each interface, with the shipped chat plugin. Figures of two
//! builds compare only when both ran on one machine one after the other.

use std::{
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use signalbox::{
    config::{InstanceMode, OnFailure, PluginConfig, PluginLimits},
    metrics::Metrics,
    plugin::{
        GuestDestination, GuestMessage, Loader, MemoryStore, Pace, PluginVersion, Transformed,
    },
};

const CALLS: u32 = 50_000;
const ROUNDS: usize = 9;

/// 128 bytes, as in the benchmarks of the whole server.
const PAYLOAD: &str = r#"{"text":"The quick brown fox jumps over the lazy dog, then does it again because the dog did not look up","n":1234567890123456}"#;

fn main() -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins/chat.wasm");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!(
            "{} is missing; `cargo xtask plugins` builds it",
            path.display()
        );
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let version = load(&path, bytes.into()).await;
        report("validate", || async {
            let verdict = version.validate(None, message()).await;
            assert!(matches!(verdict, Ok(Ok(()))), "{verdict:?}");
        })
        .await;
        report("transform", || async {
            let verdict = version.transform(None, message()).await;
            assert!(
                matches!(verdict, Ok(Ok(Transformed::Unchanged))),
                "{verdict:?}"
            );
        })
        .await;
        report("screen", || async {
            let verdict = version.screen(None, message()).await;
            assert!(
                matches!(verdict, Ok(Ok(Transformed::Unchanged))),
                "{verdict:?}"
            );
        })
        .await;
    });
    ExitCode::SUCCESS
}

async fn load(path: &Path, bytes: Arc<[u8]>) -> Arc<PluginVersion> {
    let config = Arc::new(PluginConfig {
        name: "chat".to_owned(),
        path: path.to_owned(),
        events: vec!["*".to_owned()],
        on_failure: OnFailure::Reject,
        instances: InstanceMode::Pool { max: 4 },
        limits: PluginLimits::default(),
        rollout: None,
        config_json: "{}".to_owned(),
    });
    let loader = Loader::new(
        "bench",
        None,
        Arc::<MemoryStore>::default(),
        Arc::<Metrics>::default(),
    )
    .expect("the plugin engine starts");
    loader
        .load(&config, bytes, Pace::Full)
        .await
        .expect("the chat plugin is admitted")
}

async fn report<F: Future<Output = ()>>(name: &str, call: impl Fn() -> F) {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..CALLS {
            call().await;
        }
        rounds.push(began.elapsed() / CALLS);
    }
    rounds.sort();
    let median: Duration = rounds[ROUNDS / 2];
    println!("{name:<10} {:>6} ns a call", median.as_nanos());
}

fn message() -> GuestMessage<'static> {
    GuestMessage {
        id: "0123456789ab-1f",
        event_type: "chat_message",
        sender: "bench-12345",
        destination: Some(GuestDestination::User("bench-12346")),
        payload: PAYLOAD,
        timestamp: 1_700_000_000_000,
    }
}
