//! The program under test, called as a user calls it at a terminal.

use std::env;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// The exit code of `signalbox plugin build` if a tool is missing on this machine.
const EXIT_MISSING: i32 = 3;

/// The key of the server that plugins are pushed to.
pub(super) const ADMIN_KEY: &str = "the-key-of-these-tests-alone";

/// Time limit for a push: on a busy machine, compiling gets only the CPU time that serving leaves.
pub(super) const PUSH_TIME_MAX: &str = "10m";

/// Tools that also use `XDG_CACHE_HOME`: the variable of each, and its folder there.
const TOOL_CACHES: [(&str, &str); 3] = [
    ("GOCACHE", "go-build"),
    ("PIP_CACHE_DIR", "pip"),
    ("ZIG_GLOBAL_CACHE_DIR", "zig"),
];

/// The program, and the folder in which projects are created.
pub(super) struct Signalbox {
    program: PathBuf,
    folder: PathBuf,
}

/// A tool that is missing on this machine, and how to get it, in one line.
#[derive(Debug)]
pub(super) struct Missing(pub(super) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Missing {}

impl Signalbox {
    pub(super) fn new(program: &Path, folder: &Path) -> Self {
        Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
        }
    }

    /// The folder of the project or server called `name`.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns a command that is run in `folder`.
    pub(super) fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(folder).stdin(Stdio::null());
        self.begin_without_compiled_plugins(&mut command);
        // Settings that cargo passes to this program must not reach the cargo that builds a plugin.
        for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        command
    }

    /// Gives the program its own cache, so that times do not depend on earlier runs, and lets the tools that it calls
    /// keep their caches.
    fn begin_without_compiled_plugins(&self, command: &mut Command) {
        command.env("XDG_CACHE_HOME", self.cache());
        let of_user = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(env::home_dir()?.join(".cache")));
        let Some(of_user) = of_user else { return };
        for (variable, folder) in TOOL_CACHES {
            if env::var_os(variable).is_none() {
                command.env(variable, of_user.join(folder));
            }
        }
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// The folder in which the commands for authors keep compiled plugins. Servers that use it need not compile again.
    pub(super) fn compiled_plugins(&self) -> PathBuf {
        self.cache().join("signalbox/compiled")
    }

    /// Creates a project.
    pub(super) fn new_project(&self, name: &str, language: &str) -> anyhow::Result<()> {
        self.run(&self.folder, &["plugin", "new", name, "--lang", language])
    }

    /// Runs a command of a project to its end. Its output is shown if it fails. The error is [`Missing`] if a tool is.
    pub(super) fn run(&self, folder: &Path, words: &[&str]) -> anyhow::Result<()> {
        self.run_with(folder, words, &[])
    }

    /// Like `run`, with environment variables.
    pub(super) fn run_with(
        &self,
        folder: &Path,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let output = self.output(folder, words, variables)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Ok(()),
            Some(EXIT_MISSING) => {
                bail!(Missing(
                    stderr.lines().last().unwrap_or_default().to_owned()
                ))
            }
            _ => {
                eprint!("{}{stderr}", String::from_utf8_lossy(&output.stdout));
                let (shown, status) = (words.join(" "), output.status);
                bail!("`signalbox {shown}` ended with {status}; its output is above")
            }
        }
    }

    /// Runs a command that must succeed and print JSON.
    pub(super) fn ask(&self, words: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Value> {
        let output = self.output(&self.folder, words, variables)?;
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&said)
        );
        serde_json::from_slice(&output.stdout).context("it printed no JSON")
    }

    /// Pushes the component in `file` as the plugin `name`, and returns the server's answer.
    pub(super) fn push(
        &self,
        name: &str,
        file: &Path,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Value> {
        let file = file.to_string_lossy();
        let options = ["--json", "--timeout", PUSH_TIME_MAX, "--name", name, &file];
        let words = [["plugin", "push"].as_slice(), &options].concat();
        self.ask(&words, variables).with_context(|| words.join(" "))
    }

    /// Runs a command to its end, whatever its result.
    pub(super) fn output(
        &self,
        folder: &Path,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let mut command = self.command(folder);
        let output = command.args(words).envs(variables.iter().copied()).output();
        output.with_context(|| format!("cannot run signalbox {}", words.join(" ")))
    }
}
