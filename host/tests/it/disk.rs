//! A full or read-only disk under the plugin versions and the compiled-plugin cache. Swaps go live all the same, the
//! server logs and shows that they are not kept, and the next start never finds a truncated file.
//!
//! The tests may run as root, so permissions cannot make a disk read-only here. A limit on the file size aborts a write
//! in the middle, also for root. The small disk is a tmpfs in a separate namespace, if the system lets users create
//! one.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    admin_plugins::{config, mark, plugin, post, push},
    guests::stamped,
    harness::folder,
    logged::{Logged, message},
};

/// Versions and cache in one folder.
fn config_on(disk: &str) -> String {
    format!(
        "{}[plugin_versions]\ndir = \"{disk}/versions\"\n[plugin_cache]\ndir = \"{disk}/cache\"\n",
        config("a")
    )
}

/// Pushes a version and checks that it goes live.
async fn swap(server: &Logged, number: u32) {
    assert_eq!(
        push(server, &stamped(&number.to_string())).await.status,
        200
    );
    assert_serves(server, number).await;
}

async fn assert_serves(server: &Logged, number: u32) {
    let mut ann = server.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, format!("a:STAMP-{number:0>10}"));
}

const NOT_KEPT: &str = "wss_plugin_not_kept{plugin=\"stamp\"} ";

async fn assert_kept(server: &Logged) {
    assert_eq!(plugin(server).await["not_kept"], Value::Null);
    assert_eq!(server.metric(NOT_KEPT).await, Some(0.0));
}

/// Checks that the API, the log and the metrics report that the live version is not kept because of `why`, and that the
/// log says so about the compiled plugin too.
async fn assert_not_kept(server: &Logged, why: &str) {
    let shown = plugin(server).await["not_kept"].take();
    assert!(
        shown.as_str().is_some_and(|shown| shown.contains(why)),
        "{shown}"
    );
    assert_eq!(server.metric(NOT_KEPT).await, Some(1.0));
    let versions = |line: &Value| {
        message(line).starts_with("the plugin's versions are not kept")
            && message(line).contains(why)
    };
    let line = server.until_line(versions).await;
    assert_eq!(
        (&line["level"], &line["plugin"]),
        (&"ERROR".into(), &"stamp".into())
    );
    let compiled = |line: &Value| message(line).starts_with("a compiled plugin cannot be kept");
    let line = server.until_line(compiled).await;
    let error = line["error"].as_str();
    assert!(error.is_some_and(|error| error.contains(why)), "{line}");
}

/// Checks that no partial file is left.
fn assert_nothing_half(disk: &Path) {
    for name in ["versions/stamp", "cache"] {
        for entry in fs::read_dir(disk.join(name)).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            assert!(
                path.extension().is_none_or(|kind| kind != "tmp"),
                "{} is left",
                path.display()
            );
        }
    }
}

/// Aborts every write of the server at this file size. None removes the limit.
fn limit_files(server: &Logged, bytes: Option<u64>) {
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: bytes,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(pid, Resource::Fsize, limit).expect("the limit is set");
}

#[tokio::test]
async fn an_interrupted_write_loses_only_the_version_being_written() {
    // Ignore SIGXFSZ, which would end the process: a full disk sends no signal.
    let deaf = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""].map(str::to_owned);
    let files = folder(&[("stamp.wasm", &stamped("1"))]);
    let server = Logged::start_through(deaf.to_vec(), files, &config_on("disk")).await;
    let disk = server.dir.path().join("disk");
    swap(&server, 2).await;
    assert_kept(&server).await;

    limit_files(&server, Some(64 << 10));
    swap(&server, 3).await;
    assert_not_kept(&server, "File too large").await;
    assert_nothing_half(&disk);
    let server = server.restart().await;
    assert_serves(&server, 2).await;
    assert_kept(&server).await;

    limit_files(&server, Some(64 << 10));
    swap(&server, 4).await;
    assert_not_kept(&server, "File too large").await;
    limit_files(&server, None);
    swap(&server, 5).await;
    assert_kept(&server).await;
    let server = server.restart().await;
    assert_serves(&server, 5).await;
    // The version that could not be kept at first was kept with the next change.
    assert_eq!(post(&server, "rollback").await.status, 200);
    assert_serves(&server, 4).await;
}

/// A page of a tmpfs: the minimum space that a file takes.
const PAGE: usize = 4096;

/// A small tmpfs in the folder of a server, visible only to its processes.
struct Disk {
    /// A process in the namespace of the disk, which lives as long as the disk.
    holder: Child,
    path: PathBuf,
}

impl Disk {
    /// Mounts the disk. Returns None, and prints that, if the system does not allow it.
    async fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).expect("the folder is made");
        let script = "mount -t tmpfs -o size=8m,mode=700 none \"$0\" && echo mounted && exec cat";
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut line = String::new();
        let mut holder = holder.ok();
        if let Some(stdout) = holder.as_mut().and_then(|holder| holder.stdout.take()) {
            // If the process failed, this reads nothing.
            let _ = BufReader::new(stdout).read_line(&mut line).await;
        }
        if line != "mounted\n" {
            println!(
                "NOT RUN: no disk can be mounted here for a test (`unshare --user --map-root-user --mount`)"
            );
            return None;
        }
        let holder = holder?;
        Some(Self { holder, path })
    }

    fn holder(&self) -> String {
        self.holder.id().expect("it runs").to_string()
    }

    /// The command prefix that starts a process that sees the disk, in the parent folder of the disk.
    fn through(&self) -> Vec<String> {
        let folder = self.path.parent().and_then(Path::to_str);
        let holder = self.holder();
        let words = [
            "nsenter",
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &holder,
            "--",
            "sh",
            "-c",
            "cd \"$0\" && exec \"$@\"",
            folder.expect("a path in UTF-8"),
        ];
        words.map(str::to_owned).to_vec()
    }

    /// Runs a command that sees the disk.
    async fn run(&self, words: &[&str]) {
        let through = self.through();
        let (program, rest) = through.split_first().expect("a command");
        let status = Command::new(program).args(rest).args(words).status().await;
        assert!(status.expect("it starts").success(), "{words:?}");
    }

    /// The path by which this process sees the disk.
    fn seen(&self) -> PathBuf {
        let inside = self.path.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder())).join(inside)
    }

    fn filler(&self) -> PathBuf {
        self.seen().join("filler")
    }

    /// Fills the disk up to `left` bytes.
    fn fill(&self, left: usize) {
        let mut file = OpenOptions::new();
        let mut file = file.create(true).append(true).open(self.filler());
        let file = file.as_mut().expect("the file is opened");
        let error = loop {
            if let Err(error) = file.write_all(&[1; PAGE]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let bytes = file.metadata().expect("its size").len();
        file.set_len(bytes - left as u64)
            .expect("the file is truncated");
    }

    fn make_room(&self) {
        File::create(self.filler()).expect("the file is emptied");
    }
}

/// A server on a separate disk that serves version 2, which is kept.
async fn start_on_disk() -> Option<(Logged, Disk)> {
    let files = folder(&[("stamp.wasm", &stamped("1"))]);
    let disk = Disk::mount(files.path().join("disk")).await?;
    let server = Logged::start_through(disk.through(), files, &config_on("disk")).await;
    swap(&server, 2).await;
    assert_kept(&server).await;
    Some((server, disk))
}

#[tokio::test]
async fn on_a_full_disk_swaps_go_live_and_the_next_start_finds_the_last_kept_version() {
    let Some((mut server, disk)) = start_on_disk().await else {
        return;
    };
    let component = stamped("1").len().div_ceil(PAGE) * PAGE;
    let mut kept = 2;
    // Room for nothing, for half of a component, and for a component without the state that names it.
    for (round, left) in (0_u32..).zip([0, component / PAGE / 2 * PAGE, component]) {
        disk.fill(left);
        let next = 10 * (round + 1);
        swap(&server, next).await;
        assert_not_kept(&server, "No space left on device").await;
        let shown = plugin(&server).await["not_kept"].to_string();
        assert_eq!(shown.contains("state.json"), left == component, "{shown}");
        assert_nothing_half(&disk.seen());
        // The disk is full for the next process too.
        server = server.restart().await;
        assert_serves(&server, kept).await;
        disk.make_room();
        kept = next + 1;
        swap(&server, kept).await;
        assert_kept(&server).await;
        server = server.restart().await;
        assert_serves(&server, kept).await;
    }
}

/// Ends the server, remounts the disk with `how`, and starts another server.
async fn remount(mut server: Logged, disk: &Disk, how: &str) -> Logged {
    // A running server would block the remount.
    server.kill().await;
    let path = disk.path.to_str().expect("a path in UTF-8");
    let options = format!("remount,{how}");
    // With the device named, `mount` does not repeat earlier options, such as users that the namespace does not know.
    disk.run(&["mount", "-o", &options, "none", path]).await;
    server.start_after_end(&[]).await
}

#[tokio::test]
async fn on_a_read_only_disk_the_server_starts_with_the_kept_version_and_swaps_go_live() {
    let Some((server, disk)) = start_on_disk().await else {
        return;
    };
    let server = remount(server, &disk, "ro").await;
    assert_serves(&server, 2).await;
    swap(&server, 3).await;
    assert_not_kept(&server, "Read-only file system").await;
    let server = remount(server, &disk, "rw").await;
    assert_serves(&server, 2).await;
    swap(&server, 4).await;
    assert_kept(&server).await;
    let server = server.restart().await;
    assert_serves(&server, 4).await;
}
