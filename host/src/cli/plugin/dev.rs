//! `signalbox plugin dev`: on each save, builds the plugin of a folder, runs its cases, and pushes it to a server.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::{
    build::{self, Project},
    check,
    remote::{PushScope, RemoteServer},
    test,
};

/// Folders whose files are generated.
const MADE_FOLDERS: [&str; 9] = [
    ".git",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    "bin",
    "build",
    "dist",
    "node_modules",
    "target",
];

/// Files that builds generate.
const MADE_FILES: [&str; 3] = ["Cargo.lock", "go.sum", "package-lock.json"];

/// A save counts as finished after this long without a change: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(150);

/// How often files are compared if no notification arrives, as on network file systems.
const COMPARED_EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(folder: &Path, config_text: &str, server: &RemoteServer) -> ExitCode {
    let project = match Project::read(folder) {
        Ok(project) => project,
        Err(error) => return build::failed(&error),
    };
    let pushes = server.has_key();
    if !pushes {
        println!("nothing is pushed: set SIGNALBOX_ADMIN_KEY, or name a file with --key-file");
    }
    loop {
        let sources = sources(folder);
        round(&project, config_text, pushes.then_some(server));
        println!(
            "-- waiting for the next save in {} (Ctrl-C ends)",
            folder.display()
        );
        if let Err(error) = wait_for_change(folder, &sources) {
            eprintln!("{} cannot be watched: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
}

/// Builds, tests and pushes once. An error is printed, and ends the round.
fn round(project: &Project, config_text: &str, server: Option<&RemoteServer>) {
    println!("-- building {}", project.name());
    let project = match build::build(&project.folder) {
        Ok(project) => project,
        Err(error) => {
            build::failed(&error);
            return;
        }
    };
    let cases = project.cases();
    let steps: [&dyn Fn() -> ExitCode; 3] = [
        &|| check::run_briefly(&project.component(), config_text),
        &|| match cases.exists() {
            true => test::run(&project.component(), &cases, None, false),
            false => ExitCode::SUCCESS,
        },
        &|| {
            server.map_or(ExitCode::SUCCESS, |server| {
                server.push(
                    &project.component(),
                    None,
                    PushScope::Node { force: false },
                    false,
                )
            })
        },
    ];
    let failed = steps.iter().any(|step| step() != ExitCode::SUCCESS);
    if failed && server.is_some() {
        println!("-- not live: the previous version still runs");
    }
}

/// The source files, and when each was last changed.
type Sources = BTreeMap<PathBuf, Option<SystemTime>>;

fn sources(folder: &Path) -> Sources {
    let mut sources = Sources::new();
    walk(folder, &mut |path, entry| {
        let changed = entry.metadata().and_then(|file| file.modified()).ok();
        sources.insert(path.to_owned(), changed);
    });
    sources
}

/// Visits the files and folders below `folder`, except generated ones. Entries that cannot be read are skipped.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path, &fs::DirEntry)) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let made: &[&str] = match entry.file_type() {
            Ok(kind) if kind.is_dir() => &MADE_FOLDERS,
            _ => &MADE_FILES,
        };
        if made.iter().any(|made| name == *made) {
            continue;
        }
        let path = entry.path();
        visit(&path, &entry);
        if path.is_dir() && !path.is_symlink() {
            walk(&path, visit);
        }
    }
}

/// Returns once the files differ from `known` and have stopped changing.
fn wait_for_change(folder: &Path, known: &Sources) -> notify::Result<()> {
    let (changes, notified) = channel();
    let mut watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
        // Fails after a change was found: the receiver is gone by then.
        let _ = changes.send(());
    })?;
    watch(&mut watcher, folder)?;
    loop {
        let found = sources(folder);
        if found != *known {
            settle(folder, found, &notified);
            return Ok(());
        }
        if let Err(RecvTimeoutError::Disconnected) = notified.recv_timeout(COMPARED_EVERY) {
            return Err(notify::Error::io(io::Error::other("the watcher ended")));
        }
    }
}

/// Watches each folder separately, so that the thousands of files that package managers install are not watched.
fn watch(watcher: &mut RecommendedWatcher, folder: &Path) -> notify::Result<()> {
    let mut folders = vec![folder.to_owned()];
    walk(folder, &mut |path, _| {
        if path.is_dir() {
            folders.push(path.to_owned());
        }
    });
    for folder in folders {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    }
    Ok(())
}

fn settle(folder: &Path, mut last: Sources, notified: &Receiver<()>) {
    loop {
        while notified.recv_timeout(QUIET).is_ok() {}
        let now = sources(folder);
        if now == last {
            return;
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_outputs_are_no_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, name).expect("a file");
        };
        write("src/plugin.ts");
        let before = sources(folder.path());
        for made in [
            "dist/a.wasm",
            "node_modules/x/y.js",
            "package-lock.json",
            "target/z",
        ] {
            write(made);
        }
        assert_eq!(sources(folder.path()), before);
        write("src/other.ts");
        assert_ne!(sources(folder.path()), before);
    }

    #[test]
    fn a_save_ends_the_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("main.go");
        fs::write(&file, "a").expect("a file");
        let known = sources(folder.path());
        // The write comes before or during the wait; either must be noticed.
        fs::write(folder.path().join("new.go"), "b").expect("a file");
        wait_for_change(folder.path(), &known).expect("the folder can be watched");
    }
}
