//! `signalbox run`.

use std::{io, process::ExitCode};

use anyhow::Context;
use signalbox::{
    app::{self, Source},
    config::Config,
    logging::{Log, Output},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The exit code of a server that did not drain because it was told twice to stop (128 and SIGINT, as shells have it).
const EXIT_INTERRUPTED: i32 = 130;

pub(super) fn run(config: Config, source: Source) -> ExitCode {
    let log = match Log::start() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("signalbox does not start: the log cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    };
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")
        .and_then(|runtime| {
            let served = runtime.block_on(log.during(serve(config, source, log.output())));
            // A plugin that is being compiled must not keep a process that has drained.
            runtime.shutdown_background();
            served
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.say_last(&format!("signalbox does not start: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config, source: Source, log: &Output) -> anyhow::Result<()> {
    info!("{}", super::described(&source));
    for advice in &config.advice {
        warn!("{advice}");
    }
    let address = config.server.listen;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is another server there? (server.listen)")
    })?;
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone()).context("the system gives no signals")?;
    app::run(config, source, listener, shutdown, log.dropped()).await?;
    Ok(())
}

/// The first SIGTERM or SIGINT drains, the second ends at once. From here on, not from when the task first runs.
fn stop_on_signal(shutdown: CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for repeated in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if repeated {
                std::process::exit(EXIT_INTERRUPTED);
            }
            info!("stopping; once more stops at once");
            shutdown.cancel();
        }
    });
    Ok(())
}
