//! Virtual environments, and the Python packages that tests start: moto simulates CloudWatch, kosoku runs the Autobahn cases, and
//! openapi-python-client generates a client of the API.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::requirements::install_packages;
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The list of packages with their versions, relative to the repository.
const PACKAGES: &str = "host/tests/it/cloudwatch/requirements.txt";

/// The folder to install into, relative to the repository. The tests expect it there, wherever cargo builds.
const ENVIRONMENT: &str = "target/moto";

/// Instructions for the user if the installation fails.
const BY_HAND: &str = "python3 with its venv module is needed (Debian: python3-venv), and a pip that reaches PyPI or a mirror of \
                       it (PIP_INDEX_URL, PIP_FIND_LINKS)";

/// Installs the packages if they are not installed yet.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<()> {
    let packages = workspace.root().join(PACKAGES);
    let environment = workspace.root().join(ENVIRONMENT);
    let marker = environment.join("installed.txt");
    install_packages(&packages, &marker, "pip install", || {
        install_into(&environment, &packages)
    })
}

/// Creates a virtual environment in `environment` with the packages of the list `packages`.
pub(crate) fn install_into(environment: &Path, packages: &Path) -> anyhow::Result<()> {
    build(environment, packages).context(BY_HAND)
}

fn build(environment: &Path, packages: &Path) -> anyhow::Result<()> {
    let mut venv = Command::new("python3");
    run_program(venv.args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
    pip.args(["--disable-pip-version-check", "--requirement"]);
    run_program(pip.arg(packages))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_package_is_installed_in_one_version() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join(PACKAGES)).expect("the list of packages");
        let packages: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for package in ["moto==", "kosoku==", "openapi-python-client=="] {
            assert!(packages.iter().any(|line| line.starts_with(package)));
        }
        assert!(packages.iter().all(|line| line.contains("==")), "{text}");
    }
}
