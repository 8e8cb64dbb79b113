//! `cargo xtask docs`: writes the references of the client SDKs.

use std::process::ExitCode;

use super::sdks::{API_DOCS, SDKS, Sdk, document_python, document_typescript};
use crate::programs;
use crate::steps::{Steps, run_program};
use crate::workspace::Workspace;

/// The SDKs with a reference, and the first page of each. `go doc` needs none.
const PAGES: &[(&str, &str)] = &[
    ("typescript", "typescript/index.html"),
    ("typescript", "react/index.html"),
    ("python", "python/index.html"),
    ("rust", "rust/doc/signalbox_client/index.html"),
];

/// Writes all references into `target/api-docs`, and names their first pages. SDKs whose tools are missing are skipped.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    let mut skipped = Vec::new();
    for sdk in SDKS {
        if !PAGES.iter().any(|(name, _)| *name == sdk.name) {
            continue;
        }
        if let Some(line) = programs::missing(sdk.name, sdk.programs) {
            skipped.push(line);
            continue;
        }
        steps.step(sdk.name, &[], || write(workspace, sdk.name));
    }
    print!("{}", steps.summary());
    for line in &skipped {
        println!("  {line}");
    }
    let folder = workspace.target_dir().join(API_DOCS);
    for page in PAGES.iter().map(|(_, page)| folder.join(page)) {
        if page.is_file() {
            println!("  {}", page.display());
        }
    }
    Ok(if steps.all_passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(workspace: &Workspace, sdk: &str) -> anyhow::Result<()> {
    match sdk {
        "typescript" => document_typescript(&Sdk::place_of(sdk, workspace)?),
        "python" => document_python(&Sdk::place_of(sdk, workspace)?),
        _ => document_rust(workspace),
    }
}

/// Has a build folder of its own, because cargo documents a package alone with other features than the whole workspace.
fn document_rust(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = workspace.target_dir().join(API_DOCS).join("rust");
    let mut cargo = workspace.cargo();
    cargo
        .args(["doc", "--quiet", "--package", "signalbox-client"])
        .args(["--no-deps", "--target-dir"])
        .arg(folder)
        .env("RUSTDOCFLAGS", "-D warnings");
    run_program(&mut cargo)
}
