//! `cargo xtask run`: runs the server with the plugins of this repository.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Args;

use crate::plugins;
use crate::requirements::{self, WASM_TARGET};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The address that the server listens on by default.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Variables that switch the demo page on, and let it show which versions saw a message.
const FOR_THE_DEMO: [(&str, &str); 2] = [
    ("SIGNALBOX_DEMO__ENABLED", "true"),
    ("SIGNALBOX_SERVER__TRACE_PLUGINS", "true"),
];

/// Options of `cargo xtask run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Further arguments for `signalbox run`
    #[arg(last = true)]
    server_args: Vec<String>,
}

/// Builds the server and then becomes it, so that Ctrl-C and the exit code need no process in between.
pub(crate) fn run(workspace: &Workspace, args: &RunArgs) -> anyhow::Result<ExitCode> {
    requirements::ensure(&[WASM_TARGET])?;
    plugins::build_shipped(workspace)?;
    // Built together, so that both use the same dependencies, and the client starts at once.
    let words = ["build", "-p", "signalbox", "-p", "chat-client"];
    run_program(workspace.cargo().args(words))?;
    let program = workspace.program("debug", "signalbox");
    let mut server = Command::new(&program);
    server.current_dir(workspace.root());
    server
        .args(["run", "--config", "platform.toml"])
        .args(&args.server_args);
    for (name, value) in FOR_THE_DEMO {
        if env::var_os(name).is_none() {
            server.env(name, value);
        }
    }
    eprint!("{}", what_to_try(address(|name| env::var(name).ok())));
    // Returns only if the program cannot be started.
    Err(server.exec()).with_context(|| format!("cannot run {}", program.display()))
}

/// The address that the environment gives the server. `platform.toml` and `.env` are for the server to read; it logs
/// the address that it listens on.
fn address(variable: impl Fn(&str) -> Option<String>) -> SocketAddr {
    let listen = variable("SIGNALBOX_SERVER__LISTEN").and_then(|text| text.trim().parse().ok());
    let port = variable("WSS_PORT").and_then(|text| text.trim().parse().ok());
    let mut address = listen.unwrap_or(DEFAULT_ADDRESS);
    if let (None, Some(port)) = (listen, port) {
        address.set_port(port);
    }
    if address.ip().is_unspecified() {
        address.set_ip(DEFAULT_ADDRESS.ip());
    }
    address
}

/// The next steps for a first-time user.
fn what_to_try(address: SocketAddr) -> String {
    let url = if address == DEFAULT_ADDRESS {
        String::new()
    } else {
        format!(" --url ws://{address}/ws")
    };
    format!(
        "\n\
         Signalbox will listen on ws://{address}/ws. Open http://{address}/demo/ twice and chat, or, in two other\n\
         terminals:\n\
         \n    \
         cargo run -q -p chat-client -- --user ann{url}\n    \
         cargo run -q -p chat-client -- --user bob{url}\n\
         \n\
         Type `/to bob` and a message as ann. Then change plugins/chat/src/lib.rs, run `cargo xtask plugins`,\n\
         and the next message follows the new logic. Ctrl-C stops the server.\n\
         \n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_with(variables: &[(&str, &str)]) -> String {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        address(|name| find(name).map(|(_, value)| (*value).to_owned())).to_string()
    }

    #[test]
    fn the_hints_name_the_address_that_the_environment_sets() {
        let port = ("WSS_PORT", "9000");
        let listen = ("SIGNALBOX_SERVER__LISTEN", "0.0.0.0:7000");
        assert_eq!(address_with(&[]), "127.0.0.1:8080");
        assert_eq!(address_with(&[port]), "127.0.0.1:9000");
        assert_eq!(address_with(&[port, listen]), "127.0.0.1:7000");
        assert_eq!(address_with(&[("WSS_PORT", "")]), "127.0.0.1:8080");
    }

    #[test]
    fn the_client_gets_an_address_only_if_it_differs_from_its_default() {
        assert!(!what_to_try(DEFAULT_ADDRESS).contains("--url"));
        let other = SocketAddr::new(DEFAULT_ADDRESS.ip(), 9000);
        assert!(what_to_try(other).contains("--user bob --url ws://127.0.0.1:9000/ws"));
    }
}
