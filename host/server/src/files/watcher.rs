//! Notices that a file changed, however it was changed: written in place, replaced by a rename, truncated, or created
//! in a folder that did not exist before.
//!
//! Notifications of the system are the fast path. They can get lost (a full queue, a network file system, a folder that
//! is replaced as a whole), so the files' stamps are compared periodically, too. Both lead to the same result: one
//! message for each burst of changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::Stamp;

/// The quiet time after a file was closed or moved into place, before it is read.
const SETTLED: Duration = Duration::from_millis(5);
/// The quiet time after a write whose file may still be open.
const UNSETTLED: Duration = Duration::from_millis(100);
/// The longest that a burst may delay a reload.
const BURST_MAX: Duration = Duration::from_secs(1);
/// How often stamps are compared.
const COMPARE_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of queued hints.
const HINTS_MAX: usize = 64;

/// Watches files, and reports which of them changed.
#[derive(Debug)]
pub struct FileWatcher {
    files: Files,
    /// A comparison in progress: its result survives a caller that gives up.
    comparing: Option<JoinHandle<BTreeSet<PathBuf>>>,
    watched: BTreeSet<PathBuf>,
    notifier: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Hint>,
}

/// Something happened in the folder of a file; `settled` means that the file is probably complete.
#[derive(Clone, Copy, Debug)]
struct Hint {
    settled: bool,
}

/// The files, with the latest stamp of each.
#[derive(Clone, Debug, Default)]
struct Files(Arc<Mutex<BTreeMap<PathBuf, Stamp>>>);

impl Files {
    fn stamps(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Stamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stamps all files again, and returns those that changed.
    fn compare(&self) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        for (path, old) in self.stamps().iter_mut() {
            let new = Stamp::of(path);
            if new.differs_from(old) {
                changed.insert(path.clone());
            }
            *old = new;
        }
        changed
    }
}

impl FileWatcher {
    /// Watches `files`, starting from their current state.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        // A hint that finds the queue full is redundant: the queued ones lead to the same comparison.
        let (sender, events) = mpsc::channel(HINTS_MAX);
        let notifier = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(hint) = hint(event) {
                let _ = sender.try_send(hint);
            }
        });
        let notifier = notifier.inspect_err(|error| {
            warn!(%error, "the system does not notify about files; changes are noticed within a second or two");
        });
        let mut watcher = Self {
            files: Files::default(),
            comparing: None,
            watched: BTreeSet::new(),
            notifier: notifier.ok(),
            events,
        };
        watcher.set_files(files);
        watcher
    }

    /// Watches `files` from now on. Files that were watched before keep their stamps.
    pub fn set_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut stamps = self.files.stamps();
        let stamped = |path: PathBuf| {
            let stamp = stamps.remove(&path).unwrap_or_else(|| Stamp::of(&path));
            (path, stamp)
        };
        let files = files.into_iter().map(stamped).collect();
        *stamps = files;
        drop(stamps);
        self.watch_folders();
    }

    /// Waits for a burst of changes to end, and returns the files that differ after it. Safe to cancel.
    pub async fn changed(&mut self) -> BTreeSet<PathBuf> {
        loop {
            let mut quiet_at = Instant::now() + COMPARE_INTERVAL;
            let mut latest = Instant::now() + BURST_MAX;
            let mut hinted = false;
            loop {
                tokio::select! {
                    hint = self.events.recv() => {
                        let settled = match hint {
                            Some(hint) => hint.settled,
                            // No notifier: only stamps are compared.
                            None => { sleep_until(quiet_at).await; break }
                        };
                        let now = Instant::now();
                        if !hinted {
                            latest = now + BURST_MAX;
                        }
                        hinted = true;
                        quiet_at = (now + if settled { SETTLED } else { UNSETTLED }).min(latest);
                    }
                    () = sleep_until(quiet_at) => break,
                }
            }
            self.watch_folders();
            let changed = self.compare().await;
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// Compares on a separate thread, because recently changed files are read.
    async fn compare(&mut self) -> BTreeSet<PathBuf> {
        let comparing = self.comparing.get_or_insert_with(|| {
            let files = self.files.clone();
            spawn_blocking(move || files.compare())
        });
        let changed = comparing.await;
        self.comparing = None;
        changed.unwrap_or_default()
    }

    /// Watches the folder of each file, or the nearest existing one above it. Folders rather than files, because a file
    /// that is replaced by a rename is another file.
    fn watch_folders(&mut self) {
        let Some(notifier) = &mut self.notifier else {
            return;
        };
        let stamps = self.files.stamps();
        let folders = stamps.keys().filter_map(|path| nearest_folder(path));
        let wanted: BTreeSet<PathBuf> = folders.collect();
        drop(stamps);
        for gone in self.watched.difference(&wanted) {
            let _ = notifier.unwatch(gone);
        }
        self.watched.retain(|folder| wanted.contains(folder));
        for folder in wanted {
            if self.watched.contains(&folder) {
                continue;
            }
            match notifier.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    debug!(folder = %folder.display(), "watching");
                    self.watched.insert(folder);
                }
                Err(error) => {
                    debug!(folder = %folder.display(), %error, "cannot be watched; stamps are compared")
                }
            }
        }
    }
}

fn hint(event: notify::Result<Event>) -> Option<Hint> {
    // An error (a full queue, for example) may hide a change.
    let Ok(event) = event else {
        return Some(Hint { settled: false });
    };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
        | EventKind::Remove(_) => Some(Hint { settled: true }),
        EventKind::Access(_) => None,
        _ => Some(Hint { settled: false }),
    }
}

fn nearest_folder(path: &Path) -> Option<PathBuf> {
    let folder = path
        .ancestors()
        .skip(1)
        .find(|folder| folder.as_os_str().is_empty() || folder.is_dir())?;
    Some(if folder.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        folder.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, task::Poll};

    use super::*;

    async fn next(watcher: &mut FileWatcher) -> BTreeSet<PathBuf> {
        tokio::time::timeout(Duration::from_secs(120), watcher.changed())
            .await
            .expect("no change was noticed")
    }

    #[tokio::test]
    async fn writes_renames_truncations_and_removals_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wasm");
        fs::write(&file, "1").unwrap();
        let mut watcher = FileWatcher::new([file.clone()]);
        let this = BTreeSet::from([file.clone()]);

        fs::write(&file, "22").unwrap();
        assert_eq!(next(&mut watcher).await, this, "written in place");
        fs::write(dir.path().join("new"), "333").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(next(&mut watcher).await, this, "replaced");
        fs::File::create(&file).unwrap();
        assert_eq!(next(&mut watcher).await, this, "truncated");
        fs::remove_file(&file).unwrap();
        assert_eq!(next(&mut watcher).await, this, "removed");
        fs::write(&file, "4").unwrap();
        assert_eq!(next(&mut watcher).await, this, "made again");
    }

    #[tokio::test]
    async fn a_file_of_the_same_size_and_time_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wasm");
        fs::write(&file, "1").unwrap();
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        let mut watcher = FileWatcher::new([file.clone()]);
        fs::write(&file, "2").unwrap();
        let written = fs::File::options().write(true).open(&file).unwrap();
        written.set_modified(modified).unwrap();
        assert_eq!(next(&mut watcher).await, BTreeSet::from([file]));
    }

    #[tokio::test]
    async fn a_found_change_is_not_lost_with_its_caller() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wasm");
        fs::write(&file, "1").unwrap();
        let mut watcher = FileWatcher::new([file.clone()]);
        fs::write(&file, "22").unwrap();
        let mut look = Box::pin(watcher.compare());
        // Started, and then abandoned, unless the thread was faster.
        let polled = futures_util::poll!(&mut look);
        drop(look);
        let found = match polled {
            Poll::Ready(found) => found,
            Poll::Pending => watcher.compare().await,
        };
        assert_eq!(found, BTreeSet::from([file]));
    }

    #[tokio::test]
    async fn a_folder_that_appears_later_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("later/still/a.wasm");
        let mut watcher = FileWatcher::new([file.clone()]);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "1").unwrap();
        assert_eq!(next(&mut watcher).await, BTreeSet::from([file]));
    }

    #[tokio::test]
    async fn other_files_in_the_folder_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&file, "1").unwrap();
        let mut watcher = FileWatcher::new([file.clone()]);
        fs::write(&other, "1").unwrap();
        fs::write(&file, "22").unwrap();
        assert_eq!(next(&mut watcher).await, BTreeSet::from([file]));
    }

    #[tokio::test]
    async fn a_burst_of_writes_is_one_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "").unwrap();
        let mut watcher = FileWatcher::new([path.clone()]);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        for _ in 0..200 {
            file.write_all(b"x").unwrap();
        }
        drop(file);
        assert_eq!(next(&mut watcher).await.len(), 1);
        assert!(
            watcher.compare().await.is_empty(),
            "the whole burst was one change"
        );
    }
}
