//! `signalbox plugin build`: calls the toolchain of a project's language, then prints the admission report.
//!
//! Exit codes: 0, built and admitted; 1, not built; 2, the component is refused; 3, a tool is missing on this machine.

pub(super) mod component;
mod exports;
mod javascript;
mod languages;
mod project;
mod python;
mod stage;
mod tools;

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;
pub(super) use project::Project;

use super::{check, loader::Compiling};

/// The exit code if a tool is missing and nothing is wrong with the plugin.
const EXIT_MISSING: u8 = 3;

pub(super) fn run(folder: &Path, config_text: &str, json: bool) -> ExitCode {
    match build(folder) {
        Ok(project) => check::run(&project.component(), config_text, json, Compiling::Once),
        Err(error) => failed(&error),
    }
}

/// Builds the component of the project in `folder` into its `dist`.
///
/// # Errors
/// Returns an error if it is not a project, a tool is missing, or the build fails.
pub(super) fn build(folder: &Path) -> anyhow::Result<Project> {
    let project = Project::read(folder)?;
    let component = languages::build(&project)?;
    write(&project.component(), &component)?;
    Ok(project)
}

/// Prints why nothing was built, and returns the exit code.
pub(super) fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    if error.downcast_ref::<tools::Missing>().is_some() {
        return ExitCode::from(EXIT_MISSING);
    }
    ExitCode::FAILURE
}

/// `signalbox plugin component`: turns a core module into a component.
pub(super) fn encode(module: &Path, to: &Path) -> ExitCode {
    let encoded = fs::read(module)
        .map_err(anyhow::Error::from)
        .and_then(|module| component::encode(&module))
        .with_context(|| module.display().to_string())
        .and_then(|component| write(to, &component));
    match encoded {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Writes a file in one step, so that a server that watches it never sees half of it.
fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let named = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(named)?;
    }
    let part = file.with_extension("part");
    fs::write(&part, content).with_context(named)?;
    fs::rename(&part, file).with_context(named)
}
