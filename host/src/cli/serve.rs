//! `signalbox run`.

use std::{io, net::SocketAddr, process::ExitCode};

use anyhow::{Context, anyhow};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use signalbox::{
    Server, Source, StartError,
    config::Config,
    logging::{Log, Output},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The exit code of a server that did not drain because it was stopped twice (128 plus SIGINT, as in shells).
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
            // A plugin that is still being compiled must not keep a drained process alive.
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
    raise_open_files();
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone()).context("the system gives no signals")?;
    Server::builder(config)
        .source(source)
        .log_lines_dropped(log.dropped())
        .run(shutdown)
        .await
        .map_err(with_hint)
}

/// Adds what to do about the error.
fn with_hint(error: StartError) -> anyhow::Error {
    match &error {
        StartError::Listen {
            address,
            error: cause,
            ..
        } => anyhow!("{error}{}", bind_hint(cause, *address)),
        _ => error.into(),
    }
}

/// Explains why the server cannot listen on an address, and what to do about it.
fn bind_hint(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another server is there: stop it, or take another port".to_owned(),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "; ports below 1024 are for root: take one from 1024 on, or allow it \
             (CAP_NET_BIND_SERVICE, or sysctl net.ipv4.ip_unprivileged_port_start)"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "; the system does not allow it: look at its security policy (SELinux, AppArmor, seccomp)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            let every = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            format!(
                "; this machine has no such address: take one that `ip address` shows, or {every}:{} for every one",
                address.port()
            )
        }
        _ if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => {
            "; this machine has IPv6 switched off: take an IPv4 address".to_owned()
        }
        _ => String::new(),
    }
}

/// Every connection is an open file, and the soft limit is often 1,024. If raising it fails, the limit stays unchanged.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return info!(limit = current, "open files");
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(
            limit = maximum,
            before = current,
            "open files, raised to the hard limit"
        ),
        Err(error) => {
            warn!(limit = current, %error, "the limit of open files cannot be raised (ulimit -n)")
        }
    }
}

/// The first SIGTERM or SIGINT drains, the second exits at once. Signals are caught from this call on, not from when
/// the task first runs.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_why_an_address_cannot_be_listened_on_has_its_own_hint() {
        for (errno, address, hint) in [
            (
                Errno::ADDRINUSE,
                "127.0.0.1:8080",
                "another server is there",
            ),
            (Errno::ACCESS, "127.0.0.1:80", "ports below 1024"),
            (Errno::ACCESS, "127.0.0.1:8080", "security policy"),
            (
                Errno::ADDRNOTAVAIL,
                "192.0.2.1:8080",
                "0.0.0.0:8080 for every one",
            ),
            (
                Errno::ADDRNOTAVAIL,
                "[2001:db8::1]:80",
                "[::]:80 for every one",
            ),
            (Errno::AFNOSUPPORT, "[::1]:80", "IPv6 switched off"),
        ] {
            let address = address.parse().expect("an address");
            let found = bind_hint(&errno.into(), address);
            assert!(found.contains(hint), "{errno}: {found}");
        }
    }
}
