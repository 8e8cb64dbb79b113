//! Programs that are not installed from here: a part of a command that needs one is skipped if it is missing.

use std::process::Command;

/// A program that is needed, and that nothing here can install.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The argument with which it prints its version.
    pub(crate) version: &'static str,
    /// The lowest major version; 0 for any.
    pub(crate) major_min: u32,
    /// Instructions for the user if it is missing.
    pub(crate) install: &'static str,
}

/// Node, in the oldest version that the tests run on.
pub(crate) const NODE: Program = Program {
    name: "node",
    version: "--version",
    major_min: 20,
    install: "install Node.js 20 or later (https://nodejs.org) and put node into PATH",
};

/// Installs packages for Node.
pub(crate) const NPM: Program = Program {
    name: "npm",
    version: "--version",
    major_min: 0,
    install: "install npm, which comes with Node.js (https://nodejs.org), and put it into PATH",
};

/// Returns the line that names the first program that is missing or too old for `subject`, and what to install.
pub(crate) fn missing(subject: &str, programs: &[Program]) -> Option<String> {
    programs.iter().find_map(|program| {
        let said = said_version(program.name, program.version);
        complaint(subject, program, said.as_deref())
    })
}

/// Returns the line for a program that printed this version; `None` if it will do.
fn complaint(subject: &str, program: &Program, said: Option<&str>) -> Option<String> {
    let Program { name, install, .. } = program;
    match said {
        None => Some(format!("SKIPPED {subject}: {name} is missing; {install}")),
        Some(said) if major(said) < program.major_min => Some(format!(
            "SKIPPED {subject}: {name} is {said}, which is too old; {install}"
        )),
        Some(_) => None,
    }
}

/// The first line that a program prints with this argument; `None` if it cannot be run.
pub(crate) fn said_version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().next().unwrap_or_default().trim();
    output.status.success().then(|| line.to_owned())
}

/// The major version in `v20.1.0`; if there is none, no version is too old.
fn major(version: &str) -> u32 {
    let digits = version.trim_start_matches('v').split('.').next();
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &'static str, major_min: u32) -> Program {
        Program {
            name,
            version: "--version",
            major_min,
            install: "install it",
        }
    }

    #[test]
    fn a_missing_program_is_reported_in_one_line_with_its_package() {
        let none = program("no-such-program-here", 0);
        assert_eq!(
            missing("Socket.IO", &[none]).as_deref(),
            Some("SKIPPED Socket.IO: no-such-program-here is missing; install it")
        );
        assert_eq!(missing("Socket.IO", &[program("cargo", 0)]), None);
    }

    #[test]
    fn a_program_that_is_too_old_is_named_with_its_version() {
        let node = program("node", 20);
        let line = complaint("Socket.IO", &node, Some("v18.2.0")).expect("it is too old");
        assert!(line.starts_with("SKIPPED Socket.IO: node is v18.2.0, which is too old; install"));
        for good in ["v20.1.0", "v24.0.0", "of no known form"] {
            assert_eq!(complaint("Socket.IO", &node, Some(good)), None, "{good}");
        }
    }
}
