//! Measures the cost of a plugin call on one thread of an idle machine: `cargo bench -p signalbox --bench plugin_call`.
//!
//! Prints the median of several rounds in nanoseconds for each interface, with the shipped chat plugin. If the guest
//! `hostile` of the tests is built (`cargo xtask plugins --guests`), it also prints the cost of a trap: `trap` is a
//! call that traps and is answered, `replace` includes the time until another instance has replaced the lost one. Only
//! compare figures of two builds that ran on one machine, one after the other.

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
        CompilePriority, GuestDestination, GuestMessage, Loader, MemoryStore, PluginVersion,
        Transformed,
    },
};

const CALLS: u32 = 50_000;
/// Calls that trap.
const TRAPS: u32 = 500;
const ROUNDS: usize = 9;

/// 128 bytes, as in the benchmarks of the whole server.
const PAYLOAD: &str = r#"{"text":"The quick brown fox jumps over the lazy dog, then does it again because the dog did not look up","n":1234567890123456}"#;

fn main() -> ExitCode {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins");
    let path = plugins.join("chat.wasm");
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
        report("validate", CALLS, || async {
            let verdict = version.validate(None, message()).await;
            assert!(matches!(verdict, Ok(Ok(()))), "{verdict:?}");
        })
        .await;
        report("transform", CALLS, || async {
            let verdict = version.transform(None, message()).await;
            assert!(
                matches!(verdict, Ok(Ok(Transformed::Unchanged))),
                "{verdict:?}"
            );
        })
        .await;
        report("screen", CALLS, || async {
            let verdict = version.screen(None, message()).await;
            assert!(
                matches!(verdict, Ok(Ok(Transformed::Unchanged))),
                "{verdict:?}"
            );
        })
        .await;
        let path = plugins.join("guests/hostile.wasm");
        if let Ok(bytes) = std::fs::read(&path) {
            report_traps(&load(&path, bytes.into()).await).await;
        }
    });
    ExitCode::SUCCESS
}

async fn load(path: &Path, bytes: Arc<[u8]>) -> Arc<PluginVersion> {
    let config = Arc::new(PluginConfig {
        name: "chat".to_owned(),
        path: path.to_owned(),
        events: vec!["*".to_owned()],
        on_failure: OnFailure::Reject,
        instances: InstanceMode::Pool { max: 4, min: 2 },
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
        .load(&config, bytes, CompilePriority::Full)
        .await
        .expect("the plugin is admitted")
}

async fn report_traps(version: &Arc<PluginVersion>) {
    let trap = || async {
        let panic = GuestMessage {
            event_type: "hostile.panic",
            ..message()
        };
        let answer = version.handle(None, panic).await;
        assert!(answer.is_err(), "{answer:?}");
    };
    report("trap", TRAPS, trap).await;
    report("replace", TRAPS, || async {
        trap().await;
        while version.pool_size() != (2, 2) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn report<F: Future<Output = ()>>(name: &str, calls: u32, call: impl Fn() -> F) {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..calls {
            call().await;
        }
        rounds.push(began.elapsed() / calls);
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
