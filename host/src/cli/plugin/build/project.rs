//! The folder of a plugin, described by its `plugin.toml`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::super::new::Language;

/// The file that marks a folder as a plugin's.
pub(in crate::cli::plugin) const PROJECT_FILE: &str = "plugin.toml";

/// A plugin's folder.
pub(in crate::cli::plugin) struct Project {
    /// The path of the folder.
    pub(in crate::cli::plugin) folder: PathBuf,
    file: ProjectFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectFile {
    name: String,
    language: Language,
    #[serde(default = "cases")]
    cases: PathBuf,
}

fn cases() -> PathBuf {
    "cases.json".into()
}

impl Project {
    /// Reads `plugin.toml` in `folder`.
    ///
    /// # Errors
    /// Returns an error if the file is missing or invalid.
    pub(in crate::cli::plugin) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(PROJECT_FILE);
        if !path.exists() {
            bail!(
                "{} is missing: this runs in a plugin's folder, which `signalbox plugin new` makes",
                path.display()
            );
        }
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| path.display().to_string())?;
        let file: ProjectFile =
            toml::from_str(&text).with_context(|| path.display().to_string())?;
        super::super::new::check_name(&file.name)
            .with_context(|| format!("{}: name", path.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            file,
        })
    }

    /// The plugin's name, which a server's configuration also uses.
    pub(in crate::cli::plugin) fn name(&self) -> &str {
        &self.file.name
    }

    /// The language that the plugin is written in.
    pub(super) fn language(&self) -> Language {
        self.file.language
    }

    /// The path of the component that `signalbox plugin build` writes.
    pub(in crate::cli::plugin) fn component(&self) -> PathBuf {
        self.folder
            .join("dist")
            .join(format!("{}.wasm", self.name()))
    }

    /// The path of the recorded messages that the plugin is tested with.
    pub(in crate::cli::plugin) fn cases(&self) -> PathBuf {
        self.folder.join(&self.file.cases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_plugin_and_a_wrong_file_say_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = |text: Option<&str>| {
            if let Some(text) = text {
                fs::write(folder.path().join(PROJECT_FILE), text).expect("a file");
            }
            Project::read(folder.path())
                .err()
                .map(|error| format!("{error:#}"))
        };
        for (text, part) in [
            (None, "is missing: this runs in a plugin's folder"),
            (
                Some("name = \"a\"\nlanguage = \"cobol\""),
                "unknown variant `cobol`",
            ),
            (Some("name = \"A b\"\nlanguage = \"go\""), "lower case"),
            (
                Some("name = \"a\"\nlanguage = \"go\"\ncase = \"x\""),
                "unknown field `case`",
            ),
        ] {
            let error = error(text).expect("it is wrong");
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(error(Some("name = \"a\"\nlanguage = \"go\"")), None);
    }
}
