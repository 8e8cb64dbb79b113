//! `cargo xtask run`: the server with the plugins of this repository.

use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Args;

use crate::plugins;
use crate::requirements::{self, WASM_TARGET};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// Options of `cargo xtask run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Further arguments for `signalbox run`
    #[arg(last = true)]
    server_args: Vec<String>,
}

/// Builds and then becomes the server, so that Ctrl-C and its exit code need nobody in between.
pub(crate) fn run(workspace: &Workspace, args: &RunArgs) -> anyhow::Result<ExitCode> {
    requirements::ensure(&[WASM_TARGET])?;
    plugins::build_shipped(workspace)?;
    run_program(
        workspace
            .cargo()
            .args(["build", "-p", "signalbox", "--bin", "signalbox"]),
    )?;
    let program = workspace.program("debug", "signalbox");
    let mut server = Command::new(&program);
    server.current_dir(workspace.root());
    server
        .args(["run", "--config", "platform.toml"])
        .args(&args.server_args);
    become_program(&mut server).with_context(|| format!("cannot run {}", program.display()))
}

/// Returns only when the program cannot be started.
#[cfg(unix)]
fn become_program(command: &mut Command) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec().into())
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> anyhow::Result<ExitCode> {
    let code = command
        .status()?
        .code()
        .and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
