//! How each language's toolchain is called.

use std::{env, path::Path, process::Command};

use anyhow::Context;

use super::{
    super::new::Language,
    component, javascript,
    project::Project,
    python,
    tools::{Tool, missing, output, run, virtual_environment, works},
};

/// Builds the component of a project.
///
/// # Errors
/// Returns an error if a tool is missing or the build fails.
pub(super) fn build(project: &Project) -> anyhow::Result<Vec<u8>> {
    let folder = project.folder.as_path();
    match project.language() {
        Language::Rust => rust(folder),
        Language::TypeScript | Language::JavaScript => by_npm(folder),
        Language::Python => python::component(folder),
        Language::Go => go(folder),
        Language::C => c(folder),
    }
}

fn rust(folder: &Path) -> anyhow::Result<Vec<u8>> {
    const TARGET: &str = "wasm32-wasip2";
    Tool {
        program: "cargo",
        probe: "--version",
        get: "install Rust 1.95 or later (https://rustup.rs)",
    }
    .ensure()?;
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc")?;
    if !Path::new(String::from_utf8_lossy(&asked.stdout).trim()).is_dir() {
        return Err(missing(
            "the Rust target wasm32-wasip2",
            "run `rustup target add wasm32-wasip2`",
        ));
    }
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--release",
        "--target",
        TARGET,
        "--target-dir",
        "target",
    ]);
    run(folder, &mut cargo)?;
    output(folder, "target/wasm32-wasip2/release/plugin.wasm")
}

fn by_npm(folder: &Path) -> anyhow::Result<Vec<u8>> {
    for program in ["node", "npm"] {
        Tool {
            program,
            probe: "--version",
            get: "install Node.js 20 or later with npm (https://nodejs.org)",
        }
        .ensure()?;
    }
    if !is_newer(
        folder,
        "node_modules/.package-lock.json",
        "package-lock.json",
    ) {
        let lock = folder.join("package-lock.json").exists();
        let install = if lock { "ci" } else { "install" };
        let mut npm = Command::new("npm");
        run(
            folder,
            npm.args([install, "--no-audit", "--no-fund", "--loglevel=error"]),
        )?;
    }
    run(
        folder,
        Command::new("npm").args(["run", "--silent", "build"]),
    )?;
    javascript::component(folder)
}

fn go(folder: &Path) -> anyhow::Result<Vec<u8>> {
    Tool {
        program: "go",
        probe: "version",
        get: "install Go 1.24 or later (https://go.dev/dl/)",
    }
    .ensure()?;
    let mut go = Command::new("go");
    go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm")]);
    go.args([
        "build",
        "-trimpath",
        "-buildmode=c-shared",
        "-ldflags=-s -w",
    ]);
    run(folder, go.args(["-o", "build/core.wasm", "."]))?;
    component::encode(&output(folder, "build/core.wasm")?)
}

fn c(folder: &Path) -> anyhow::Result<Vec<u8>> {
    Tool {
        program: "make",
        probe: "--version",
        get: "install GNU Make, on Debian and Ubuntu with `apt install make`",
    }
    .ensure()?;
    let compiler = format!("CC={}", c_compiler(folder)?);
    run(
        folder,
        Command::new("make").args(["--silent", &compiler, "build/core.wasm"]),
    )?;
    component::encode(&output(folder, "build/core.wasm")?)
}

/// Returns the command line of a C compiler that supports wasm32-wasi: from the SDK that `WASI_SDK_PATH` names, from
/// the machine, or installed into the project.
fn c_compiler(folder: &Path) -> anyhow::Result<String> {
    if let Some(sdk) = env::var("WASI_SDK_PATH").ok().filter(|sdk| !sdk.is_empty()) {
        return Ok(format!("{sdk}/bin/clang"));
    }
    if works(Command::new("zig").arg("version")) {
        return Ok("zig cc".to_owned());
    }
    virtual_environment(folder)
        .map(|_| ".venv/bin/python -m ziglang cc".to_owned())
        .context(
            "there is no zig in PATH and no WASI_SDK_PATH, so one is installed into the project",
        )
}

/// Whether `made` exists and is not older than `source`.
fn is_newer(folder: &Path, made: &str, source: &str) -> bool {
    let changed = |name: &str| {
        folder
            .join(name)
            .metadata()
            .and_then(|file| file.modified())
    };
    match (changed(made), changed(source)) {
        (Ok(made), Ok(source)) => made >= source,
        (Ok(_), Err(_)) => true,
        (Err(_), _) => false,
    }
}
