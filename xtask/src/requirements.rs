//! The requirements on the machine in addition to cargo, and how they are installed.

mod browser;
mod debian;
mod prometheus;
mod redis;

use std::process::Command;

use anyhow::{Context as _, bail};

/// The target that plugins are built for: its output is a component, and no further tool is needed.
pub(crate) const PLUGIN_TARGET: &str = "wasm32-wasip2";

/// Something that a command needs.
pub(crate) struct Requirement {
    /// The name for messages.
    name: &'static str,
    /// Checks whether it is installed.
    present: fn() -> anyhow::Result<bool>,
    /// Installs it.
    install: fn() -> anyhow::Result<()>,
    /// Instructions for the user if neither works.
    by_hand: &'static str,
}

/// The standard library for [`PLUGIN_TARGET`].
pub(crate) const WASM_TARGET: Requirement = Requirement {
    name: "the Rust target wasm32-wasip2",
    present: wasm_target_present,
    install: wasm_target_install,
    by_hand: "install rustup (https://rustup.rs) and run `rustup target add wasm32-wasip2`, \
              or put the target's standard library into the sysroot of the Rust in use",
};

/// A Redis server that the tests and `cargo xtask cluster` start for themselves.
pub(crate) const REDIS_SERVER: Requirement = Requirement {
    name: "redis-server 7.0 or newer",
    present: redis::present,
    install: redis::install,
    by_hand: "install Redis (https://redis.io/docs/latest/operate/oss_and_stack/install/) or Valkey with its \
              redis-server command, and put redis-server into PATH",
};

/// The program with which the tests check `/metrics`.
pub(crate) const PROMTOOL: Requirement = Requirement {
    name: "promtool",
    present: prometheus::present,
    install: prometheus::install,
    by_hand: "install Prometheus (https://prometheus.io/download/), and put its promtool into PATH",
};

/// The browser with which the tests check the demo page.
pub(crate) const BROWSER: Requirement = Requirement {
    name: "chromium and its chromedriver",
    present: browser::present,
    install: browser::install,
    by_hand: "install Chromium or Chrome with the ChromeDriver of the same version \
              (https://developer.chrome.com/docs/chromedriver/), and put chromedriver into PATH",
};

/// The programs that the tests start.
pub(crate) const PROGRAMS_OF_TESTS: &[Requirement] = &[REDIS_SERVER, PROMTOOL, BROWSER];

/// Makes sure that all requirements are met: installs what is missing, and returns an error with instructions for
/// everything that cannot be installed.
pub(crate) fn ensure(requirements: &[Requirement]) -> anyhow::Result<()> {
    let failed = requirements.iter().filter_map(|one| one.ensure().err());
    let failed: Vec<_> = failed.map(|error| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

impl Requirement {
    fn ensure(&self) -> anyhow::Result<()> {
        let Self {
            name,
            present,
            install,
            by_hand,
        } = self;
        let missing = || format!("{name} is missing and cannot be installed from here: {by_hand}");
        if present().with_context(missing)? {
            return Ok(());
        }
        eprintln!("installing {name}");
        install().with_context(missing)?;
        if !present().with_context(missing)? {
            bail!("{name} is still missing after its installation: {by_hand}");
        }
        Ok(())
    }
}

/// If rustup does not list the target, asks the compiler itself where its libraries are, so that a target that came
/// without rustup counts too.
fn wasm_target_present() -> anyhow::Result<bool> {
    let listed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    if let Ok(listed) = listed
        .as_ref()
        .map(|output| String::from_utf8_lossy(&output.stdout))
        && listed.lines().any(|line| line.trim() == PLUGIN_TARGET)
    {
        return Ok(true);
    }
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(compiler)
        .args(["--print", "target-libdir", "--target", PLUGIN_TARGET])
        .output()
        .context("cannot run rustc")?;
    let libdir = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    Ok(asked.status.success() && std::path::Path::new(&libdir).is_dir())
}

fn wasm_target_install() -> anyhow::Result<()> {
    crate::steps::run_program(Command::new("rustup").args(["target", "add", PLUGIN_TARGET]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(
        present: fn() -> anyhow::Result<bool>,
        install: fn() -> anyhow::Result<()>,
    ) -> Requirement {
        Requirement {
            name: "a thing",
            present,
            install,
            by_hand: "do it by hand",
        }
    }

    #[test]
    fn what_is_there_is_not_installed() {
        let there = requirement(|| Ok(true), || bail!("must not be called"));
        assert!(ensure(&[there]).is_ok());
    }

    #[test]
    fn a_failed_installation_says_what_to_do() {
        let refused = requirement(|| Ok(false), || bail!("no network"));
        let error = ensure(&[refused]).expect_err("it cannot be installed");
        assert!(
            format!("{error:#}").contains("do it by hand: no network"),
            "{error:#}"
        );
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let refused = || requirement(|| Ok(false), || bail!("no network"));
        let error = ensure(&[refused(), refused()]).expect_err("neither can be installed");
        assert_eq!(
            error.to_string().matches("do it by hand").count(),
            2,
            "{error}"
        );
    }

    #[test]
    fn an_installation_without_effect_is_an_error() {
        let without_effect = requirement(|| Ok(false), || Ok(()));
        let error = ensure(&[without_effect]).expect_err("it is still missing");
        assert!(error.to_string().contains("still missing"), "{error}");
    }
}
