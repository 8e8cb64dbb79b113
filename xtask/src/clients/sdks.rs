//! The SDKs: the programs that each needs, how it is built and tested, and its driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::programs::{NODE, NPM, Program};
use crate::requirements::{self, INSTALL_VARIABLE, MAVEN, Requirement, may_install};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// A client SDK.
pub(super) struct Sdk {
    pub(super) name: &'static str,
    /// Its folder, relative to the repository.
    folder: &'static str,
    /// The programs that it needs. Without them it is skipped.
    pub(super) programs: &'static [Program],
    /// Other programs that it needs, and that are installed if they are missing.
    requirements: &'static [Requirement],
    /// Installs its packages, builds it and runs its own tests.
    prepare: fn(&Place<'_>, &Path) -> anyhow::Result<()>,
    /// The command that starts its driver.
    driver: fn(&Place<'_>) -> Command,
}

/// All SDKs.
pub(super) const SDKS: &[Sdk] = &[
    Sdk {
        name: "typescript",
        folder: "clients/typescript",
        programs: &[NODE, NPM],
        requirements: &[],
        prepare: prepare_typescript,
        driver: |place| {
            let mut node = Command::new("node");
            node.arg(place.source.join("conformance/driver.mjs"));
            node
        },
    },
    Sdk {
        name: "python",
        folder: "clients/python",
        programs: &[PYTHON],
        requirements: &[],
        prepare: prepare_python,
        driver: |place| {
            let mut python = place.python();
            python.arg(place.source.join("conformance_driver.py"));
            python
        },
    },
    Sdk {
        name: "go",
        folder: "clients/go",
        programs: &[GO],
        requirements: &[],
        prepare: prepare_go,
        driver: |place| Command::new(place.go_driver()),
    },
    Sdk {
        name: "rust",
        folder: "clients/rust",
        programs: &[],
        requirements: &[],
        prepare: prepare_rust,
        driver: |place| Command::new(place.rust_driver()),
    },
    Sdk {
        name: "kotlin",
        folder: "clients/kotlin",
        programs: &[],
        requirements: &[MAVEN],
        prepare: prepare_kotlin,
        driver: |place| place.kotlin_driver(),
    },
];

const PYTHON: Program = Program {
    name: "python3",
    version: "--version",
    major_min: 0,
    install: "install Python 3.10 or later with its venv module (https://www.python.org) and put python3 into PATH",
};

const GO: Program = Program {
    name: "go",
    version: "version",
    major_min: 0,
    install: "install Go (https://go.dev/dl) in the version of clients/go/go.mod or later and put go into PATH",
};

impl Sdk {
    /// Whether the repository has it.
    pub(super) fn exists(&self, workspace: &Workspace) -> bool {
        workspace.root().join(self.folder).is_dir()
    }

    /// Installs its packages, builds it and runs its own tests.
    /// Some of them use the server's `program`.
    pub(super) fn prepare(&self, workspace: &Workspace, program: &Path) -> anyhow::Result<()> {
        requirements::ensure(self.requirements)?;
        (self.prepare)(&self.place(workspace), program)
    }

    /// The command that starts its driver.
    pub(super) fn driver(&self, workspace: &Workspace) -> Command {
        (self.driver)(&self.place(workspace))
    }

    fn place<'w>(&self, workspace: &'w Workspace) -> Place<'w> {
        Place {
            workspace,
            source: workspace.root().join(self.folder),
            built: workspace.target_dir().join("clients").join(self.name),
        }
    }
}

/// The folders of an SDK.
struct Place<'w> {
    workspace: &'w Workspace,
    source: PathBuf,
    built: PathBuf,
}

impl Place<'_> {
    /// A command of the virtual environment.
    fn python(&self) -> Command {
        let mut python = Command::new(self.built.join("bin/python"));
        python
            .env("PYTHONPATH", self.source.join("src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(&self.source);
        python
    }

    fn go_driver(&self) -> PathBuf {
        self.built.join("driver")
    }

    fn rust_driver(&self) -> PathBuf {
        self.workspace
            .program("debug/examples", "conformance_driver")
    }

    /// Maven, which keeps its packages and all that it builds in the folder of the build.
    fn maven(&self) -> Command {
        let mut maven = self.command("mvn", &["--batch-mode", "--quiet"]);
        let setting = |name: &str, path: &Path| format!("-D{name}={}", path.display());
        maven
            .arg(setting("maven.repo.local", &self.built.join("repository")))
            .arg(setting("built", &self.built));
        maven
    }

    fn kotlin_driver(&self) -> Command {
        let classes = self.built.join("classes").display().to_string();
        let driver = self.built.join("signalbox-client-driver.jar");
        let mut java = Command::new("java");
        java.args(JAVA_THAT_STARTS_FAST)
            .arg("-cp")
            .arg(format!("{classes}:{}", driver.display()))
            .arg("signalbox.conformance.DriverKt");
        java
    }

    /// A command in the folder of the sources.
    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(&self.source);
        command
    }
}

/// The package for React and its example use the SDK, so they are tested with it, in this order.
const WITH_TYPESCRIPT: [&str; 3] = ["clients/typescript", "clients/react", "examples/react-chat"];

fn prepare_typescript(place: &Place<'_>, program: &Path) -> anyhow::Result<()> {
    let root = place.workspace.root();
    for folder in WITH_TYPESCRIPT {
        let package = Place {
            workspace: place.workspace,
            source: root.join(folder),
            built: place.built.clone(),
        };
        prepare_package(&package, program).context(folder)?;
    }
    Ok(())
}

fn prepare_package(place: &Place<'_>, program: &Path) -> anyhow::Result<()> {
    let lock = place.source.join("package-lock.json");
    let installed = place.source.join("node_modules/.installed.json");
    install(
        &lock,
        &installed,
        "npm must reach its registry or a mirror (npm config set registry)",
        || {
            let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
            run_program(&mut place.command("npm", &words))
        },
    )?;
    run_program(&mut place.command("npm", &["run", "--silent", "build"]))?;
    run_program(
        place
            .command("npm", &["test", "--silent"])
            .env("SIGNALBOX", program),
    )
}

fn prepare_python(place: &Place<'_>, _program: &Path) -> anyhow::Result<()> {
    let packages = place.source.join("requirements.txt");
    let installed = place.built.join("installed.txt");
    install(
        &packages,
        &installed,
        "pip must reach PyPI or a mirror (PIP_INDEX_URL, PIP_FIND_LINKS)",
        || {
            run_program(
                Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&place.built),
            )?;
            let words = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-input",
                "--disable-pip-version-check",
                "--requirement",
            ];
            run_program(place.python().args(words).arg(&packages))
        },
    )?;
    run_program(
        place
            .python()
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]),
    )
}

fn prepare_go(place: &Place<'_>, _program: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(&place.built)?;
    let mut build = place.command("go", &["build", "-mod=readonly", "-o"]);
    build.arg(place.go_driver()).arg("./conformance");
    let mut test = place.command("go", &["test", "-mod=readonly", "./..."]);
    for command in [&mut build, &mut test] {
        if !may_install() {
            // Modules that are already there are used.
            command.env("GOPROXY", "off");
        }
        run_program(command)?;
    }
    Ok(())
}

/// Builds the driver. The tests of this SDK are among those of the workspace.
fn prepare_rust(place: &Place<'_>, _program: &Path) -> anyhow::Result<()> {
    // With the features of the whole workspace, so that no dependency is compiled a second time.
    let words = ["build", "--workspace", "--example", "conformance_driver"];
    run_program(place.workspace.cargo().args(words))
}

/// A driver lives for seconds, and others run at the same time.
const JAVA_THAT_STARTS_FAST: [&str; 3] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"];

fn prepare_kotlin(place: &Place<'_>, _program: &Path) -> anyhow::Result<()> {
    let packages = place.source.join("pom.xml");
    let installed = place.built.join("installed.xml");
    let list = read_list(&packages)?;
    let mut maven = place.maven();
    if !may_install() || is_installed(&list, &installed) {
        // Packages that are already there are used.
        maven.arg("--offline");
    }
    run_program(maven.arg("package")).context(
        "if packages are missing, Maven must reach Maven Central or a mirror of it (mirrors in ~/.m2/settings.xml)",
    )?;
    mark_installed(&list, &installed)
}

/// Installs the packages of the list `wanted`, unless `installed` says that it was done.
fn install(
    wanted: &Path,
    installed: &Path,
    by_hand: &str,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let list = read_list(wanted)?;
    if is_installed(&list, installed) {
        return Ok(());
    }
    if !may_install() {
        bail!(
            "the packages of {} are missing, and {INSTALL_VARIABLE}=no forbids to install them",
            wanted.display()
        );
    }
    eprintln!("installing the packages of {}", wanted.display());
    work().with_context(|| {
        format!(
            "the packages of {} cannot be installed: {by_hand}",
            wanted.display()
        )
    })?;
    mark_installed(&list, installed)
}

fn read_list(wanted: &Path) -> anyhow::Result<String> {
    fs::read_to_string(wanted).with_context(|| format!("cannot read {}", wanted.display()))
}

fn is_installed(list: &str, installed: &Path) -> bool {
    fs::read_to_string(installed).is_ok_and(|installed| installed == list)
}

/// Comes last, so that an interrupted installation is repeated.
fn mark_installed(list: &str, installed: &Path) -> anyhow::Result<()> {
    fs::write(installed, list).with_context(|| format!("cannot write {}", installed.display()))
}
