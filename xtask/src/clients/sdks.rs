//! The SDKs: the programs that each needs, how it is built and tested, and its driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::packages;
use crate::programs::{NODE, NPM, Program};
use crate::python;
use crate::requirements::{self, MAVEN, PackageList, Requirement, install_packages, may_install};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The folder of the references in the build folder.
pub(super) const API_DOCS: &str = "api-docs";

/// A client SDK.
pub(super) struct Sdk {
    pub(super) name: &'static str,
    /// Its folder, relative to the repository.
    folder: &'static str,
    /// The programs that it needs. Without them it is skipped.
    pub(super) programs: &'static [Program],
    /// Other programs that it needs, and that are installed if they are missing.
    requirements: &'static [Requirement],
    /// Installs its packages and builds it. With the server's program it runs its own tests, too.
    prepare: fn(&Place<'_>, Option<&Path>) -> anyhow::Result<()>,
    /// The command that starts its driver.
    driver: fn(&Place<'_>) -> Command,
    /// The command that starts its process of many clients, if it has one.
    herd: Option<fn(&Place<'_>) -> Command>,
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
        herd: Some(|place| {
            let mut node = Command::new("node");
            node.arg(place.source.join("conformance/herd.mjs"));
            node
        }),
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
        herd: Some(|place| {
            let mut python = place.python();
            python.arg(place.source.join("conformance_herd.py"));
            python
        }),
    },
    Sdk {
        name: "go",
        folder: "clients/go",
        programs: &[GO],
        requirements: &[],
        prepare: prepare_go,
        driver: |place| Command::new(place.go_program("driver")),
        herd: Some(|place| Command::new(place.go_program("herd"))),
    },
    Sdk {
        name: "rust",
        folder: "clients/rust",
        programs: &[],
        requirements: &[],
        prepare: prepare_rust,
        driver: |place| Command::new(place.rust_example("conformance_driver")),
        herd: Some(|place| Command::new(place.rust_example("herd"))),
    },
    Sdk {
        name: "kotlin",
        folder: "clients/kotlin",
        programs: &[],
        requirements: &[MAVEN],
        prepare: prepare_kotlin,
        driver: |place| place.kotlin_driver(),
        herd: None,
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
        (self.prepare)(&self.place(workspace), Some(program))
    }

    /// Installs its packages and builds it.
    pub(super) fn build(&self, workspace: &Workspace) -> anyhow::Result<()> {
        requirements::ensure(self.requirements)?;
        (self.prepare)(&self.place(workspace), None)
    }

    /// The command that starts its driver.
    pub(super) fn driver(&self, workspace: &Workspace) -> Command {
        (self.driver)(&self.place(workspace))
    }

    /// Whether it has a process of many clients.
    pub(super) fn has_herd(&self) -> bool {
        self.herd.is_some()
    }

    /// The command that starts its process of many clients, if it has one.
    pub(super) fn herd(&self, workspace: &Workspace) -> Option<Command> {
        Some((self.herd?)(&self.place(workspace)))
    }

    /// The folders of the SDK with this name.
    pub(super) fn place_of<'w>(name: &str, workspace: &'w Workspace) -> anyhow::Result<Place<'w>> {
        let sdk = SDKS.iter().find(|sdk| sdk.name == name);
        Ok(sdk.context("an SDK")?.place(workspace))
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
pub(super) struct Place<'w> {
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

    fn go_program(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }

    fn rust_example(&self, name: &str) -> PathBuf {
        self.workspace.program("debug/examples", name)
    }

    /// The folders of another package that is tested with this SDK.
    fn package(&self, folder: &str) -> Self {
        Self {
            workspace: self.workspace,
            source: self.workspace.root().join(folder),
            built: self.built.clone(),
        }
    }

    /// The folder of the references, each in a folder with the name of its SDK.
    fn api_docs(&self) -> PathBuf {
        self.workspace.target_dir().join(API_DOCS)
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

/// The package for React, the reference and the projects that use the SDK are tested with it, in this order.
const WITH_TYPESCRIPT: [&str; 5] = [
    "clients/typescript",
    "clients/react",
    "clients/typescript/typedoc",
    "clients/typescript/newcomer",
    "examples/react-chat",
];

/// Those of [`WITH_TYPESCRIPT`] that the reference needs.
const WITH_TYPEDOC: usize = 3;

fn prepare_typescript(place: &Place<'_>, program: Option<&Path>) -> anyhow::Result<()> {
    let Some(program) = program else {
        return build_package(place);
    };
    for folder in WITH_TYPESCRIPT {
        let package = place.package(folder);
        build_package(&package).context(folder)?;
        let words = ["test", "--silent", "--if-present"];
        let mut test = package.command("npm", &words);
        run_program(test.env("SIGNALBOX", program)).context(folder)?;
    }
    Ok(())
}

/// Writes the references of the packages for TypeScript and React.
pub(super) fn document_typescript(place: &Place<'_>) -> anyhow::Result<()> {
    for folder in &WITH_TYPESCRIPT[..WITH_TYPEDOC] {
        build_package(&place.package(folder)).context(*folder)?;
    }
    Ok(())
}

/// Installs the packages that a package needs, and builds it.
fn build_package(place: &Place<'_>) -> anyhow::Result<()> {
    let lock = place.source.join("package-lock.json");
    let installed = place.source.join("node_modules/.installed.json");
    install_packages(&lock, &installed, "npm ci", || {
        let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run_program(&mut place.command("npm", &words))
            .context("npm must reach its registry or a mirror (npm config set registry)")
    })?;
    let mut build = place.command("npm", &["run", "--silent", "--if-present", "build"]);
    run_program(build.env("API_DOCS", place.api_docs()))
}

fn prepare_python(place: &Place<'_>, program: Option<&Path>) -> anyhow::Result<()> {
    install_python(place)?;
    if program.is_none() {
        return Ok(());
    }
    write_python_reference(place)?;
    run_program(
        place
            .python()
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]),
    )?;
    let cache = place.built.join("mypy");
    run_program(
        place
            .python()
            .args(["-m", "mypy", "--cache-dir"])
            .arg(cache),
    )
}

/// Writes the reference of the package for Python.
pub(super) fn document_python(place: &Place<'_>) -> anyhow::Result<()> {
    install_python(place)?;
    write_python_reference(place)
}

fn write_python_reference(place: &Place<'_>) -> anyhow::Result<()> {
    let mut pdoc = place.python();
    pdoc.args(["-m", "pdoc", "--output-directory"])
        .arg(place.api_docs().join("python"))
        .arg("signalbox_client");
    run_program(&mut pdoc)
}

fn install_python(place: &Place<'_>) -> anyhow::Result<()> {
    let packages = place.source.join("requirements.txt");
    let installed = place.built.join("installed.txt");
    install_packages(&packages, &installed, "pip install", || {
        python::install_into(&place.built, &packages)
    })
}

fn prepare_go(place: &Place<'_>, program: Option<&Path>) -> anyhow::Result<()> {
    fs::create_dir_all(&place.built)?;
    let build = |name: &str, folder: &str| {
        let mut build = place.command("go", &["build", "-mod=readonly", "-o"]);
        build.arg(place.go_program(name)).arg(folder);
        build
    };
    let mut commands = vec![build("driver", "./conformance"), build("herd", "./herd")];
    if program.is_some() {
        commands.push(place.command("go", &["test", "-mod=readonly", "./..."]));
        commands.push(place.command("go", &["vet", "-mod=readonly", "./..."]));
    }
    for command in &mut commands {
        if !may_install() {
            // Modules that are already there are used.
            command.env("GOPROXY", "off");
        }
        run_program(command)?;
    }
    Ok(())
}

/// Builds the examples. The tests of this SDK are among those of the workspace.
fn prepare_rust(place: &Place<'_>, program: Option<&Path>) -> anyhow::Result<()> {
    // With the features of the whole workspace, so that no dependency is compiled a second time.
    let words = [
        "build",
        "--workspace",
        "--example",
        "conformance_driver",
        "--example",
        "herd",
    ];
    run_program(place.workspace.cargo().args(words))?;
    match program {
        Some(_) => packages::check_crate(place.workspace, "signalbox-client"),
        None => Ok(()),
    }
}

/// A driver lives for seconds, and others run at the same time.
const JAVA_THAT_STARTS_FAST: [&str; 3] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"];

fn prepare_kotlin(place: &Place<'_>, program: Option<&Path>) -> anyhow::Result<()> {
    let packages = place.source.join("pom.xml");
    let installed = place.built.join("installed.xml");
    let packages = PackageList::read(&packages, &installed)?;
    let mut maven = place.maven();
    if !may_install() || packages.is_installed() {
        // Packages that are already there are used.
        maven.arg("--offline");
    }
    if program.is_none() {
        maven.arg("-DskipTests");
    }
    run_program(maven.arg("package")).context(
        "if packages are missing, Maven must reach Maven Central or a mirror of it (mirrors in ~/.m2/settings.xml)",
    )?;
    packages.mark_installed()
}
