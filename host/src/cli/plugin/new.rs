//! `signalbox plugin new`: creates a project that builds, from templates embedded in this program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use include_dir::{Dir, include_dir};
use serde::Deserialize;

use super::build::component::WIT;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/templates");
static RUST_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/rust/src");
static GO_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/go");
static C_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/c");
static TYPESCRIPT_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/typescript");
static PYTHON_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/python");

/// The name of plugins in the templates.
const PLACEHOLDER: &str = "my-plugin";

/// The longest name, in bytes. An event type that begins with it, such as `NAME.greeting`, has at most 64 characters.
const NAME_BYTES_MAX: usize = 40;

/// The language that a plugin is written in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub(in crate::cli) enum Language {
    /// Rust, with cargo
    Rust,
    /// TypeScript, with npm and QuickJS
    TypeScript,
    /// JavaScript, with npm and QuickJS
    JavaScript,
    /// Python, with componentize-py
    Python,
    /// Go
    Go,
    /// C, with zig or clang
    C,
}

/// A file of a new project: its path and its content.
type File = (PathBuf, Vec<u8>);

pub(super) fn run(name: &str, language: Language, folder: Option<&Path>) -> ExitCode {
    let folder = folder.map_or_else(|| PathBuf::from(name), Path::to_owned);
    match create(name, language, &folder) {
        Ok(()) => {
            println!(
                "{} is ready. Next:\n  cd {}\n  signalbox plugin build\n  signalbox plugin test",
                name,
                folder.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a project into `folder`, which must not exist yet.
fn create(name: &str, language: Language, folder: &Path) -> anyhow::Result<()> {
    check_name(name)?;
    let named = || folder.display().to_string();
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(
                "{} exists already: nothing was written; take another name, or another place with --path",
                folder.display()
            );
        }
        Err(error) => return Err(error).with_context(named),
    }
    for (path, content) in language.files(name) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(named)?;
        }
        fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Checks that a plugin can have this name with cargo, npm, Go, the configuration and event types.
///
/// # Errors
/// Returns an error that says what is wrong with the name.
pub(super) fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    if !begins || !name.bytes().all(fits) || name.ends_with('-') || name.len() > NAME_BYTES_MAX {
        bail!(
            "{name:?} cannot be a plugin's name: use 1 to {NAME_BYTES_MAX} letters in lower case, digits and \
             hyphens, beginning with a letter and not ending with a hyphen"
        );
    }
    if name == "signalbox" {
        bail!(
            "\"signalbox\" cannot be a plugin's name: event types that begin with it are the server's"
        );
    }
    Ok(())
}

impl Language {
    /// The folder of its template.
    fn template(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::TypeScript => "typescript",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Go => "go",
            Self::C => "c",
        }
    }

    /// Returns the files of a new project, including the SDK and the WIT package.
    fn files(self, name: &str) -> Vec<File> {
        let mut files = Vec::new();
        let language = self.template();
        if let Some(template) = TEMPLATES.get_dir(language) {
            collect(template, Path::new(language), Path::new(""), &mut files);
        }
        if let Some(cases) = TEMPLATES.get_file("cases.json") {
            files.push(("cases.json".into(), cases.contents().to_vec()));
        }
        for (_, content) in &mut files {
            if let Ok(text) = std::str::from_utf8(content) {
                *content = text.replace(PLACEHOLDER, name).into_bytes();
            }
        }
        let none = Path::new("");
        let wit = match self {
            Self::Rust => {
                collect(&RUST_SDK, none, Path::new("sdk/src"), &mut files);
                "sdk/wit"
            }
            Self::Go => {
                collect(&GO_SDK, none, Path::new("sdk"), &mut files);
                "wit"
            }
            Self::C => {
                collect(&C_SDK, none, none, &mut files);
                "wit"
            }
            Self::TypeScript | Self::JavaScript => {
                collect(&TYPESCRIPT_SDK, none, Path::new("sdk"), &mut files);
                "wit/deps/signalbox-plugin"
            }
            Self::Python => {
                collect(&PYTHON_SDK, none, none, &mut files);
                "wit/deps/signalbox-plugin"
            }
        };
        let package = WIT
            .iter()
            .map(|(file, text)| (Path::new(wit).join(file), text.as_bytes().to_vec()));
        files.extend(package);
        files
    }
}

/// Collects the files in and below `folder`, without `prefix` in their paths, and puts them under `to`.
fn collect(folder: &Dir<'_>, prefix: &Path, to: &Path, files: &mut Vec<File>) {
    // A project gets the SDK without the SDK's own tests.
    let is_test = |path: &Path| path.to_string_lossy().ends_with("_test.go");
    for file in folder.files().filter(|file| !is_test(file.path())) {
        let path = file.path().strip_prefix(prefix).unwrap_or(file.path());
        files.push((to.join(path), file.contents().to_vec()));
    }
    // Python leaves its compiled files behind.
    let source = |below: &&Dir<'_>| !below.path().ends_with("__pycache__");
    for below in folder.dirs().filter(source) {
        collect(below, prefix, to, files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_do_for_every_tool_that_sees_it() {
        for name in ["a", "my-plugin", "x2", &"a".repeat(40)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "A",
            "-a",
            "a-",
            "2a",
            "a b",
            "../a",
            "a_b",
            "ä",
            "signalbox",
            &"a".repeat(41),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn existing_files_are_not_changed() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("mine");
        create("mine", Language::Go, &folder).expect("nothing is there");
        let main = fs::read_to_string(folder.join("main.go")).expect("it was written");
        assert!(main.contains("\"mine.hello\"") && !main.contains(PLACEHOLDER));
        fs::write(folder.join("main.go"), "changed").expect("it can be written");
        let error = create("mine", Language::Rust, &folder).expect_err("it is there");
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(
            fs::read_to_string(folder.join("main.go")).ok().as_deref(),
            Some("changed")
        );
    }

    #[test]
    fn every_template_is_a_complete_project() {
        for language in Language::value_variants() {
            let files = language.files("mine");
            let text = |name: &str| {
                let file = files.iter().find(|(path, _)| path == Path::new(name));
                let (_, content) = file.unwrap_or_else(|| panic!("{language:?} has no {name}"));
                String::from_utf8_lossy(content).into_owned()
            };
            assert!(text("plugin.toml").contains("name = \"mine\""));
            assert!(text("plugin.toml").contains(&format!("\"{}\"", language.template())));
            assert!(text("README.md").contains("signalbox plugin build"));
            assert!(text(".gitignore").contains("dist"));
            assert!(text("cases.json").contains("mine.hello"));
            let has_wit = files.iter().any(|(path, _)| path.ends_with("exports.wit"));
            assert!(has_wit, "{language:?} has no WIT");
            let left = files
                .iter()
                .find(|(_, content)| String::from_utf8_lossy(content).contains(PLACEHOLDER));
            assert!(left.is_none(), "{:?}", left.map(|(path, _)| path));
        }
    }
}
