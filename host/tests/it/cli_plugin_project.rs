//! The commands for plugin authors, with fake toolchains: `cargo xtask test --languages` uses the real ones.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    admin::{KEY, WITH_KEY},
    guests::{PATIENT, stamped},
    harness::{Node, PATIENCE, folder},
    process::{Finished, run},
};

/// A folder with a JavaScript project called `stamp`, and fake programs `node` and `npm`; `npm` "builds" by copying the
/// source file.
async fn project() -> tempfile::TempDir {
    let dir = folder(&[]);
    let made = run(
        dir.path(),
        &["plugin", "new", "stamp", "--lang", "javascript"],
        &[],
    )
    .await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let npm = "#!/bin/sh\n\
        case $1 in\n\
        ci) mkdir -p node_modules && touch node_modules/.package-lock.json ;;\n\
        run) if grep -q mistake src/plugin.js; then echo 'plugin.js:1: a mistake' >&2; exit 1; fi\n\
             mkdir -p build && cp src/plugin.js build/plugin.wasm ;;\n\
        esac\n";
    for (name, script) in [("node", "#!/bin/sh\n"), ("npm", npm)] {
        let path = dir.path().join("tools").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, script).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    dir
}

/// Saves the source of the project: the component that it is to be "built" to.
fn save(dir: &Path, source: &[u8]) {
    let file = dir.join("stamp/src/plugin.js");
    let part = file.with_extension("part");
    fs::write(&part, source).expect("a file");
    fs::rename(part, file).expect("a file");
}

fn path_with_tools(dir: &Path) -> String {
    format!("{}:/usr/bin:/bin", dir.join("tools").display())
}

async fn in_project(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let path = path_with_tools(dir);
    let environment = [&[("PATH", path.as_str())], environment].concat();
    run(
        &dir.join("stamp"),
        &[&["plugin"], arguments].concat(),
        &environment,
    )
    .await
}

#[tokio::test]
async fn a_project_is_made_and_an_existing_folder_refused() {
    let dir = folder(&[]);
    for language in ["rust", "typescript", "javascript", "python", "go", "c"] {
        let made = run(
            dir.path(),
            &["plugin", "new", language, "--lang", language],
            &[],
        )
        .await;
        assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
        assert!(
            made.stdout.contains("signalbox plugin build"),
            "{}",
            made.stdout
        );
        let project = fs::read_to_string(dir.path().join(language).join("plugin.toml"));
        assert!(project.is_ok_and(|text| text.contains(&format!("name = \"{language}\""))));
    }
    let again = run(dir.path(), &["plugin", "new", "go", "--lang", "c"], &[]).await;
    assert_eq!(again.code, Some(1));
    assert!(
        again
            .stderr
            .contains("go exists already: nothing was written"),
        "{}",
        again.stderr
    );
    let misnamed = run(dir.path(), &["plugin", "new", "../x", "--lang", "c"], &[]).await;
    assert_eq!(misnamed.code, Some(1));
    assert!(
        misnamed.stderr.contains("cannot be a plugin's name"),
        "{}",
        misnamed.stderr
    );
}

#[tokio::test]
async fn a_build_ends_with_the_admission_report() {
    let dir = project().await;
    save(dir.path(), &stamped("1"));
    let built = in_project(dir.path(), &["build"], &[]).await;
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    assert!(
        built.stdout.contains("verdict     admitted"),
        "{}",
        built.stdout
    );
    assert!(dir.path().join("stamp/dist/stamp.wasm").exists());
    assert!(!built.stdout.contains("done before"), "{}", built.stdout);

    let again = in_project(dir.path(), &["build"], &[]).await;
    assert!(again.stdout.contains("done before"), "{}", again.stdout);
    let checked = in_project(dir.path(), &["check", "dist/stamp.wasm"], &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(
        !checked.stdout.contains("done before"),
        "it tells the time that compiling takes: {}",
        checked.stdout
    );

    save(dir.path(), b"no component");
    let refused = in_project(dir.path(), &["build"], &[]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stdout.contains("verdict     refused: "),
        "{}",
        refused.stdout
    );
}

#[tokio::test]
async fn a_failed_build_and_a_missing_tool_are_different_errors() {
    let dir = project().await;
    save(dir.path(), b"mistake");
    let failed = in_project(dir.path(), &["build"], &[]).await;
    assert_eq!(failed.code, Some(1));
    assert!(
        failed.stderr.starts_with("plugin.js:1: a mistake\n"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("`npm run --silent build` failed"),
        "{}",
        failed.stderr
    );

    let nothing = dir.path().join("nothing");
    let nothing = [("PATH", nothing.to_str().expect("a path"))];
    let stamp = dir.path().join("stamp");
    let missing = run(&stamp, &["plugin", "build"], &nothing).await;
    assert_eq!(missing.code, Some(3));
    assert_eq!(
        missing.stderr,
        "node is missing: install Node.js 20 or later with npm (https://nodejs.org)\n"
    );
    let elsewhere = run(dir.path(), &["plugin", "build"], &[]).await;
    assert_eq!(elsewhere.code, Some(1));
    assert!(
        elsewhere.stderr.contains("plugin.toml is missing"),
        "{}",
        elsewhere.stderr
    );
}

#[tokio::test]
async fn a_save_is_live_or_its_error_is_shown_and_the_old_version_stays() {
    let config = format!(
        "{WITH_KEY}[[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n{PATIENT}"
    );
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await;
    let dir = project().await;
    fs::remove_file(dir.path().join("stamp/cases.json")).expect("cases of another plugin");
    save(dir.path(), &stamped("2"));
    let url = format!("http://{}", node.address);
    let mut dev = Dev::start(dir.path(), &url);
    dev.until("is live in the place of").await;
    dev.until("waiting for the next save").await;
    save(dir.path(), b"mistake");
    dev.until("a mistake").await;
    dev.until("waiting for the next save").await;
    save(dir.path(), &stamped("3"));
    dev.until("is live in the place of").await;
}

/// A running `signalbox plugin dev` and its output. The process ends when this value is dropped.
struct Dev {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Dev {
    fn start(dir: &Path, url: &str) -> Self {
        // One stream, to keep the order of its output and the output of the tools.
        let script = format!("exec {} plugin dev 2>&1", env!("CARGO_BIN_EXE_signalbox"));
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script])
            .current_dir(dir.join("stamp"))
            .env_clear()
            .env("PATH", path_with_tools(dir))
            .env("SIGNALBOX_ADMIN_KEY", KEY)
            .env("SIGNALBOX_URL", url)
            .env("XDG_CACHE_HOME", dir.join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take().expect("a pipe");
        Self {
            _child: child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Reads up to and including a line that contains `part`.
    async fn until(&mut self, part: &str) {
        let found = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                println!("{line}");
                if line.contains(part) {
                    return;
                }
            }
            panic!("it ended without {part:?}");
        };
        timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("{part:?} did not appear"));
    }
}
