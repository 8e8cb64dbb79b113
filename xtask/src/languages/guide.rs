//! Checks the TypeScript and Python snippets of the pages about plugins in a project of their language. The Rust
//! snippets are tests of the SDK, and those in Go and C are excerpts of plugins that other tests build.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::Steps;
use super::signalbox::Signalbox;
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The guide and its pages, relative to the repository.
const PAGES: [&str; 8] = [
    "docs/plugins.md",
    "docs/plugin-testing.md",
    "docs/plugin-versions.md",
    "docs/plugins/c.md",
    "docs/plugins/go.md",
    "docs/plugins/python.md",
    "docs/plugins/rust.md",
    "docs/plugins/typescript.md",
];

/// Adds the Python snippets to the conformance project in `folder`, as modules that its plugin imports: a snippet that
/// does not run fails its build.
pub(super) fn add_modules(
    workspace: &Workspace,
    language: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    if language != "python" {
        return Ok(());
    }
    let main = folder.join("app.py");
    let mut app = fs::read_to_string(&main)?;
    for (number, snippet) in all_snippets(workspace, "python")?.iter().enumerate() {
        fs::write(folder.join(format!("guide{number}.py")), snippet)?;
        app += &format!("\nimport guide{number}\n");
    }
    fs::write(main, app).context("the plugin with the snippets")
}

/// Checks the types of the TypeScript snippets in the conformance project, which exports every interface.
pub(super) fn run(
    signalbox: &Signalbox,
    workspace: &Workspace,
    language: &str,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    if language != "typescript" {
        return Ok(());
    }
    let folder = signalbox.folder("conformance-typescript");
    steps.step("guide", || {
        for (number, snippet) in all_snippets(workspace, "ts")?.iter().enumerate() {
            fs::write(folder.join(format!("src/guide{number}.ts")), snippet)?;
        }
        let mut tsc = Command::new("node_modules/.bin/tsc");
        run_program(tsc.arg("--noEmit").current_dir(&folder))
    })
}

/// Returns the snippets of all pages. It is an error if there are none.
fn all_snippets(workspace: &Workspace, fence: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for page in PAGES {
        let text = fs::read_to_string(workspace.root().join(page)).context(page)?;
        found.extend(snippets(&text, fence));
    }
    ensure!(!found.is_empty(), "no page has a snippet for {fence}");
    Ok(found)
}

/// Returns the texts between fences of this language.
fn snippets(page: &str, fence: &str) -> Vec<String> {
    let opening = format!("```{fence}\n");
    let parts = page.split(&opening).skip(1);
    let snippets = parts.filter_map(|part| part.split_once("```"));
    snippets.map(|(snippet, _)| snippet.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        fs::read_to_string(root.join(path)).expect(path)
    }

    #[test]
    fn every_page_in_the_folder_is_checked() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins");
        for entry in fs::read_dir(folder).expect("the folder of the pages") {
            let name = entry.expect("a page").file_name();
            let page = format!("docs/plugins/{}", name.to_string_lossy());
            assert!(
                PAGES.contains(&page.as_str()),
                "PAGES in xtask/src/languages/guide.rs lacks {page}"
            );
        }
    }

    #[test]
    fn examples_in_rust_are_only_in_the_page_that_the_sdk_tests() {
        for page in PAGES {
            let has_none = snippets(&read(page), "rust").is_empty();
            assert_eq!(has_none, page != "docs/plugins/rust.md", "{page}");
        }
    }

    #[test]
    fn examples_in_go_and_c_are_excerpts_of_plugins_that_the_tests_build() {
        let go = [
            "sdk/templates/go",
            "sdk/conformance/go",
            "examples/presence",
        ];
        let go = go.map(|folder| format!("{folder}/main.go"));
        let c = ["templates", "conformance"].map(|kind| format!("sdk/{kind}/c/plugin.c"));
        for (fence, plugins) in [("go", go.as_slice()), ("c", &c)] {
            let sources: String = plugins.iter().map(|plugin| read(plugin)).collect();
            for page in PAGES {
                for example in snippets(&read(page), fence) {
                    assert!(
                        sources.contains(&example),
                        "{page} has an example that is not in {plugins:?}:\n{example}"
                    );
                }
            }
        }
    }

    #[test]
    fn snippets_end_with_their_fence() {
        let guide = "a\n```ts\nlet a;\n```\nb\n```python\npass\n```\n```ts\nlet b;\n```\n";
        assert_eq!(snippets(guide, "ts"), ["let a;\n", "let b;\n"]);
    }
}
