//! The requirements on the machine in addition to cargo, and how they are installed.

mod browser;
mod debian;
mod haproxy;
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
    /// The command that installs it, for messages.
    command: &'static str,
    /// Installs it.
    install: fn() -> anyhow::Result<()>,
    /// Instructions for the user if neither works.
    by_hand: &'static str,
}

/// The standard library for [`PLUGIN_TARGET`].
pub(crate) const WASM_TARGET: Requirement = Requirement {
    name: "the Rust target wasm32-wasip2",
    present: wasm_target_present,
    command: "rustup target add wasm32-wasip2",
    install: wasm_target_install,
    by_hand: "install rustup (https://rustup.rs) and run `rustup target add wasm32-wasip2`, \
              or put the target's standard library into the sysroot of the Rust in use",
};

/// A Redis server that the tests and `cargo xtask cluster` start for themselves.
pub(crate) const REDIS_SERVER: Requirement = Requirement {
    name: "redis-server 7.0 or newer",
    present: redis::present,
    command: "apt-get install redis-server",
    install: redis::install,
    by_hand: "install Redis (https://redis.io/docs/latest/operate/oss_and_stack/install/) or Valkey with its \
              redis-server command, and put redis-server into PATH",
};

/// The program with which the tests check `/metrics`.
pub(crate) const PROMTOOL: Requirement = Requirement {
    name: "promtool",
    present: prometheus::present,
    command: "apt-get install prometheus",
    install: prometheus::install,
    by_hand: "install Prometheus (https://prometheus.io/download/), and put its promtool into PATH",
};

/// The browser with which the tests check the demo page.
pub(crate) const BROWSER: Requirement = Requirement {
    name: "chromium and its chromedriver",
    present: browser::present,
    command: "apt-get install chromium-driver fonts-dejavu-core",
    install: browser::install,
    by_hand: "install Chromium or Chrome with the ChromeDriver of the same version \
              (https://developer.chrome.com/docs/chromedriver/), and put chromedriver into PATH",
};

/// The proxy behind which the tests put several nodes.
pub(crate) const HAPROXY: Requirement = Requirement {
    name: "haproxy",
    present: haproxy::present,
    command: "apt-get install haproxy",
    install: haproxy::install,
    by_hand: "install HAProxy (https://www.haproxy.org), and put haproxy into PATH",
};

/// The programs that the tests start.
pub(crate) const PROGRAMS_OF_TESTS: &[Requirement] = &[REDIS_SERVER, PROMTOOL, BROWSER, HAPROXY];

/// If this variable is `no`, nothing is installed, and everything that is missing is an error.
pub(crate) const INSTALL_VARIABLE: &str = "XTASK_INSTALL";

/// Whether the environment allows installations.
pub(crate) fn may_install() -> bool {
    std::env::var_os(INSTALL_VARIABLE).is_none_or(|value| value != "no")
}

/// Prints which of the requirements are missing, and how each will be installed.
pub(crate) fn announce(requirements: &[Requirement]) {
    if !may_install() {
        return;
    }
    // An error is reported when the requirement is needed.
    let is_missing = |one: &&Requirement| (one.present)().is_ok_and(|present| !present);
    for Requirement { name, command, .. } in requirements.iter().filter(is_missing) {
        eprintln!(
            "{name} is missing and will be installed ({command}); {INSTALL_VARIABLE}=no forbids it"
        );
    }
}

/// Makes sure that all requirements are met: installs what is missing, and returns an error with instructions for
/// everything that cannot be installed.
pub(crate) fn ensure(requirements: &[Requirement]) -> anyhow::Result<()> {
    ensure_all(requirements, may_install())
}

fn ensure_all(requirements: &[Requirement], may_install: bool) -> anyhow::Result<()> {
    let failed = requirements
        .iter()
        .filter_map(|one| one.ensure(may_install).err());
    let failed: Vec<_> = failed.map(|error| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

impl Requirement {
    fn ensure(&self, may_install: bool) -> anyhow::Result<()> {
        let Self {
            name,
            present,
            command,
            install,
            by_hand,
        } = self;
        let missing = || format!("{name} is missing and cannot be installed from here: {by_hand}");
        if present().with_context(missing)? {
            return Ok(());
        }
        if !may_install {
            bail!("{name} is missing, and {INSTALL_VARIABLE}=no forbids to install it: {by_hand}");
        }
        eprintln!("installing {name}: {command}");
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
            command: "install a thing",
            install,
            by_hand: "do it by hand",
        }
    }

    #[test]
    fn what_is_there_is_not_installed() {
        let there = requirement(|| Ok(true), || bail!("must not be called"));
        assert!(ensure_all(&[there], true).is_ok());
    }

    #[test]
    fn a_failed_installation_says_what_to_do() {
        let refused = requirement(|| Ok(false), || bail!("no network"));
        let error = ensure_all(&[refused], true).expect_err("it cannot be installed");
        assert!(
            format!("{error:#}").contains("do it by hand: no network"),
            "{error:#}"
        );
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let refused = || requirement(|| Ok(false), || bail!("no network"));
        let error =
            ensure_all(&[refused(), refused()], true).expect_err("neither can be installed");
        assert_eq!(
            error.to_string().matches("do it by hand").count(),
            2,
            "{error}"
        );
    }

    #[test]
    fn nothing_is_installed_if_the_environment_forbids_it() {
        let absent = || requirement(|| Ok(false), || panic!("must not be called"));
        let error = ensure_all(&[absent()], false).expect_err("it is missing");
        let text = error.to_string();
        assert!(text.contains("XTASK_INSTALL=no forbids"), "{text}");
        assert!(text.contains("do it by hand"), "{text}");
        let there = requirement(|| Ok(true), || panic!("must not be called"));
        assert!(ensure_all(&[there], false).is_ok());
    }

    #[test]
    fn an_installation_without_effect_is_an_error() {
        let without_effect = requirement(|| Ok(false), || Ok(()));
        let error = ensure_all(&[without_effect], true).expect_err("it is still missing");
        assert!(error.to_string().contains("still missing"), "{error}");
    }
}
