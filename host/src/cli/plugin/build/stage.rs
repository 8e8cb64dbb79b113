//! Assembles the parts of a component: the plugin's world, and the imports of our own modules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The staging folder, relative to the project's folder.
pub(super) const STAGE: &str = "build/component";

/// The world in the `wit` folder of [`STAGE`]: the plugin's exports, and all imports that the server offers.
pub(super) const WORLD: &str = "built";

const WORLD_TEXT: &str =
    "world built { include plugin; include signalbox:plugin/imports@1.0.0; }\n";

/// Recreates the staging folder of the project in `folder`, with its world and with `files` (name and text).
///
/// # Errors
/// Returns an error if files cannot be read or written.
pub(super) fn begin(folder: &Path, files: &[(&str, &str)]) -> anyhow::Result<()> {
    let stage = folder.join(STAGE);
    if stage.exists() {
        fs::remove_dir_all(&stage).context(STAGE)?;
    }
    copy(&folder.join("wit"), &stage.join("wit"))?;
    fs::write(stage.join("wit/built.wit"), WORLD_TEXT).context(STAGE)?;
    for (name, text) in files {
        fs::write(stage.join(name), text).context(STAGE)?;
    }
    Ok(())
}

/// Copies a folder with the targets of its links: the programs that read the copy follow no links.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let named = || from.display().to_string();
    fs::create_dir_all(to).with_context(named)?;
    for entry in from.read_dir().with_context(named)? {
        let source: PathBuf = entry.with_context(named)?.path();
        let Some(name) = source.file_name() else {
            continue;
        };
        let place = to.join(name);
        if source.is_dir() {
            copy(&source, &place)?;
        } else {
            fs::copy(&source, &place).with_context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_the_targets_of_links_and_no_files_of_the_previous_build() {
        let project = tempfile::tempdir().expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs::write(elsewhere.path().join("a.wit"), "a").expect("a file");
        fs::create_dir_all(project.path().join("wit/deps")).expect("a folder");
        std::os::unix::fs::symlink(elsewhere.path(), project.path().join("wit/deps/other"))
            .expect("a link");
        begin(project.path(), &[("old.js", "1")]).expect("a stage");
        begin(project.path(), &[("new.js", "2")]).expect("another one");
        let stage = project.path().join(STAGE);
        let read = |name: &str| fs::read_to_string(stage.join(name)).ok();
        assert_eq!(read("wit/deps/other/a.wit").as_deref(), Some("a"));
        assert_eq!(read("wit/built.wit").as_deref(), Some(WORLD_TEXT));
        assert_eq!(
            (read("old.js"), read("new.js").as_deref()),
            (None, Some("2"))
        );
    }
}
