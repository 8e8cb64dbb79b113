//! The requirements on the machine in addition to cargo, and how they are installed.

mod debian;
mod maven;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::steps::run_program;

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
    install: || run_program(Command::new("rustup").args(["target", "add", PLUGIN_TARGET])),
    by_hand: "install rustup (https://rustup.rs) and run `rustup target add wasm32-wasip2`, \
              or put the target's standard library into the sysroot of the Rust in use",
};

/// A Redis server that the tests and `cargo xtask cluster` start for themselves.
pub(crate) const REDIS_SERVER: Requirement = Requirement {
    name: "redis-server 7.0 or newer",
    present: redis_present,
    command: "apt-get install redis-server",
    install: || debian::install_without_starting("redis-server", "redis-server.service"),
    by_hand: "install Redis (https://redis.io/docs/latest/operate/oss_and_stack/install/) or Valkey with its \
              redis-server command, and put redis-server into PATH",
};

/// The program with which the tests check `/metrics`.
pub(crate) const PROMTOOL: Requirement = Requirement {
    name: "promtool",
    present: || Ok(said_version("promtool", "--version")?.is_some()),
    command: "apt-get install prometheus",
    // The package also brings the server, which is not started.
    install: || debian::install_without_starting("prometheus", "prometheus.service"),
    by_hand: "install Prometheus (https://prometheus.io/download/), and put its promtool into PATH",
};

/// The browser with which the tests check the demo page.
pub(crate) const BROWSER: Requirement = Requirement {
    name: "chromium and its chromedriver",
    // The driver finds the browser.
    present: || Ok(said_version("chromedriver", "--version")?.is_some()),
    command: "apt-get install chromium-driver fonts-dejavu-core",
    // The driver's package brings the browser; without a font the browser shows boxes.
    install: || debian::install(&["chromium-driver", "fonts-dejavu-core"]),
    by_hand: "install Chromium or Chrome with the ChromeDriver of the same version \
              (https://developer.chrome.com/docs/chromedriver/), and put chromedriver into PATH",
};

/// The build tool of the Kotlin client, and the JDK that it needs.
pub(crate) const MAVEN: Requirement = Requirement {
    name: "Maven with a JDK 17 or newer",
    present: maven::present,
    command: "apt-get install maven default-jdk-headless",
    install: maven::install,
    by_hand: "install a JDK 17 or newer (https://adoptium.net) and Maven (https://maven.apache.org/install.html), and put \
              java, javac and mvn into PATH",
};

/// The proxy behind which the tests put several nodes.
pub(crate) const HAPROXY: Requirement = Requirement {
    name: "haproxy",
    present: || Ok(said_version("haproxy", "-v")?.is_some()),
    command: "apt-get install haproxy",
    install: || debian::install_without_starting("haproxy", "haproxy.service"),
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

/// A list of packages, and the file in their folder that shows which list is installed.
pub(crate) struct PackageList {
    wanted: String,
    marker: PathBuf,
}

impl PackageList {
    /// Reads the file `list`.
    pub(crate) fn read(list: &Path, marker: &Path) -> anyhow::Result<Self> {
        let wanted = fs::read_to_string(list);
        Ok(Self {
            wanted: wanted.with_context(|| format!("cannot read {}", list.display()))?,
            marker: marker.to_owned(),
        })
    }

    /// Whether the packages of this list are installed.
    pub(crate) fn is_installed(&self) -> bool {
        fs::read_to_string(&self.marker).is_ok_and(|installed| installed == self.wanted)
    }

    /// Notes that they are installed. Comes last, so that an interrupted installation is repeated.
    pub(crate) fn mark_installed(&self) -> anyhow::Result<()> {
        fs::write(&self.marker, &self.wanted)
            .with_context(|| format!("cannot write {}", self.marker.display()))
    }
}

/// Installs the packages that the file `list` names, unless the file `marker` in their folder shows that they are there.
/// `command` is for messages.
pub(crate) fn install_packages(
    list: &Path,
    marker: &Path,
    command: &str,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let packages = PackageList::read(list, marker)?;
    if packages.is_installed() {
        return Ok(());
    }
    let (shown, place) = (list.display(), marker.parent().unwrap_or(marker).display());
    ensure!(
        may_install(),
        "the packages of {shown} are missing, and {INSTALL_VARIABLE}=no forbids to install them into {place}"
    );
    eprintln!("installing the packages of {shown} into {place}: {command}");
    install()
        .with_context(|| format!("the packages of {shown} are missing and cannot be installed"))?;
    packages.mark_installed()
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
    ensure!(failed.is_empty(), "{}", failed.join("; "));
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

/// The first version of Redis with sharded publish and subscribe.
const OLDEST_REDIS: (u32, u32) = (7, 0);

/// Whether the first `redis-server` in PATH is new enough. An older one is an error, because a newer one installed next
/// to it would not be found.
fn redis_present() -> anyhow::Result<bool> {
    let Some(said) = said_version("redis-server", "--version")? else {
        return Ok(false);
    };
    match redis_version(&said) {
        Some(found) if found >= OLDEST_REDIS => Ok(true),
        Some((major, minor)) => bail!("the redis-server in PATH is {major}.{minor}, too old"),
        None => bail!("`redis-server --version` says {:?}", said.trim()),
    }
}

/// Reads the major and minor version from a text such as `Redis server v=7.0.15 sha=...`.
fn redis_version(said: &str) -> Option<(u32, u32)> {
    let (_, rest) = said.split_once("v=")?;
    let mut numbers = rest.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The output of a program in PATH for `argument`; `None` if it is not there.
fn said_version(program: &str, argument: &str) -> anyhow::Result<Option<String>> {
    let asked = match Command::new(program).arg(argument).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        asked => asked.with_context(|| format!("cannot run {program}"))?,
    };
    let status = asked.status;
    ensure!(
        status.success(),
        "`{program} {argument}` fails with {status}"
    );
    Ok(Some(String::from_utf8_lossy(&asked.stdout).into_owned()))
}

/// If rustup does not list the target, asks the compiler itself where its libraries are, so that a target that came
/// without rustup counts too.
fn wasm_target_present() -> anyhow::Result<bool> {
    let listed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    let listed = listed.map_or_else(|_| Vec::new(), |output| output.stdout);
    if String::from_utf8_lossy(&listed)
        .lines()
        .any(|line| line.trim() == PLUGIN_TARGET)
    {
        return Ok(true);
    }
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compiler = Command::new(compiler);
    compiler.args(["--print", "target-libdir", "--target", PLUGIN_TARGET]);
    let asked = compiler.output().context("cannot run rustc")?;
    let libdir = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    Ok(asked.status.success() && Path::new(&libdir).is_dir())
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

    fn refused() -> Requirement {
        requirement(|| Ok(false), || bail!("no network"))
    }

    fn failure(requirements: &[Requirement], may_install: bool) -> String {
        let error = ensure_all(requirements, may_install).expect_err("it is missing");
        format!("{error:#}")
    }

    #[test]
    fn present_requirements_are_not_installed() {
        let there = requirement(|| Ok(true), || bail!("must not be called"));
        assert!(ensure_all(&[there], true).is_ok());
    }

    #[test]
    fn a_failed_installation_explains_the_next_step() {
        let failure = failure(&[refused()], true);
        assert!(failure.contains("do it by hand: no network"), "{failure}");
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let failure = failure(&[refused(), refused()], true);
        assert_eq!(failure.matches("do it by hand").count(), 2, "{failure}");
    }

    #[test]
    fn nothing_is_installed_if_the_environment_forbids_it() {
        let absent = requirement(|| Ok(false), || panic!("must not be called"));
        let failure = failure(&[absent], false);
        for part in ["XTASK_INSTALL=no forbids", "do it by hand"] {
            assert!(failure.contains(part), "{failure}");
        }
        let there = requirement(|| Ok(true), || panic!("must not be called"));
        assert!(ensure_all(&[there], false).is_ok());
    }

    #[test]
    fn an_installation_without_effect_is_an_error() {
        let failure = failure(&[requirement(|| Ok(false), || Ok(()))], true);
        assert!(failure.contains("still missing"), "{failure}");
    }

    #[test]
    fn the_version_of_redis_is_read_from_its_report() {
        let debian = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n";
        assert_eq!(redis_version(debian), Some((7, 0)));
        assert_eq!(redis_version("Server v=8.1.0 sha=0 bits=64"), Some((8, 1)));
        assert_eq!(redis_version("redis-server: bad option"), None);
        assert!(OLDEST_REDIS <= (8, 0) && OLDEST_REDIS > (6, 2));
    }
}
