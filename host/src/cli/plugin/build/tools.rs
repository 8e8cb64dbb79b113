//! Finds and runs the programs that a language needs.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// A program that must be installed on the machine.
pub(super) struct Tool {
    /// The program, and an argument that makes it do nothing and succeed.
    pub(super) program: &'static str,
    pub(super) probe: &'static str,
    /// How to get it: the text that follows "is missing: ".
    pub(super) get: &'static str,
}

impl Tool {
    /// # Errors
    /// Returns a one-line error that says how to get the tool if it is missing.
    pub(super) fn ensure(&self) -> anyhow::Result<()> {
        if works(Command::new(self.program).arg(self.probe)) {
            return Ok(());
        }
        Err(missing(self.program, self.get))
    }
}

/// The error for a tool that is not installed. The command then exits with 3, by which `cargo xtask test --languages`
/// recognizes it.
pub(super) fn missing(tool: &str, get: &str) -> anyhow::Error {
    anyhow::Error::new(Missing(format!("{tool} is missing: {get}")))
}

/// Not the plugin's fault: something is missing on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Missing(String);

/// Whether a command can be run and succeeds.
pub(super) fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command in `folder` until it ends, with its output on the terminal.
///
/// # Errors
/// Returns an error if it cannot be run or fails; its output then says why.
pub(super) fn run(folder: &Path, command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown = format!("{program} {}", words.join(" "));
    // The command's output is only progress; our own standard output is reserved for the report.
    let status = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("`{shown}` failed with {status}; its output is above");
    }
    Ok(())
}

/// Reads a file that a build has left in `folder`.
pub(super) fn output(folder: &Path, file: &str) -> anyhow::Result<Vec<u8>> {
    let path = folder.join(file);
    std::fs::read(&path).with_context(|| format!("the build did not create {}", path.display()))
}

/// Makes sure that the project has its own Python environment with the packages of `requirements.txt`, and returns its
/// `bin` folder.
///
/// # Errors
/// Returns an error if there is no Python or a package cannot be installed.
pub(super) fn virtual_environment(folder: &Path) -> anyhow::Result<PathBuf> {
    let wanted = std::fs::read_to_string(folder.join("requirements.txt"))
        .context("requirements.txt of the project")?;
    let environment = folder.join(".venv");
    let stamp = environment.join("installed.txt");
    let bin = environment.join("bin");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(bin);
    }
    Tool {
        program: "python3",
        probe: "--version",
        get: "install Python 3.10 or later (https://www.python.org/downloads/)",
    }
    .ensure()?;
    let made = run(
        folder,
        Command::new("python3").args(["-m", "venv", ".venv"]),
    );
    made.map_err(|_| {
        missing(
            "Python's module venv",
            "install it, on Debian and Ubuntu with `apt install python3-venv`",
        )
    })?;
    let mut pip = Command::new(".venv/bin/python");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    run(folder, pip.args(["--requirement", "requirements.txt"]))?;
    std::fs::write(stamp, wanted).context(".venv of the project")?;
    Ok(bin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_reported_in_one_line_with_its_installation() {
        let tool = Tool {
            program: "no-such-program-here",
            probe: "--version",
            get: "write it",
        };
        let error = tool.ensure().expect_err("it is not there");
        assert_eq!(
            error.to_string(),
            "no-such-program-here is missing: write it"
        );
        assert!(error.downcast_ref::<Missing>().is_some());
    }

    #[test]
    fn a_command_that_fails_is_named() {
        let error = run(Path::new("."), Command::new("false").arg("x")).expect_err("it fails");
        assert!(error.to_string().contains("`false x` failed"), "{error}");
    }
}
