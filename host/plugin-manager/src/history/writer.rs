//! Writes the versions of plugins off the serving threads, and only the latest state of each plugin.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use signalbox_plugin_runtime::{LoadError, Sha256, source};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::{
    folder::{ComponentIndex, FolderError, HistoryFolder},
    state::PersistedState,
};

/// How long a caller that needs something to be on disk waits for a disk that does not respond.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// The versions of all plugins, on disk. Clones share the same state.
#[derive(Clone, Debug)]
pub(crate) struct HistoryStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// For reading, which needs no lock.
    dir: PathBuf,
    folder: Mutex<HistoryFolder>,
    queue: Mutex<WriteQueue>,
    /// The queue number up to which every write was attempted.
    done: watch::Sender<u64>,
}

/// The states that wait to be written, at most one for each plugin: a newer state replaces the one that waits.
#[derive(Debug, Default)]
struct WriteQueue {
    jobs: BTreeMap<String, WriteJob>,
    /// Counts the states that came in.
    number: u64,
    /// Whether a thread is writing.
    running: bool,
    /// Why the last state of a plugin is not on disk.
    failures: BTreeMap<String, String>,
}

#[derive(Debug)]
struct WriteJob {
    state: PersistedState,
    components: ComponentIndex,
}

impl WriteJob {
    /// Takes over the components of an older job that are still needed, so that no more are held than a state names.
    fn after(mut self, older: WriteJob) -> Self {
        let wanted: Vec<_> = self.state.components().copied().collect();
        let older = older.components.into_iter();
        self.components
            .extend(older.filter(|(hash, _)| wanted.contains(hash)));
        self
    }
}

/// `jobs`, and those of `older` that no newer job replaces.
fn with_older(
    mut jobs: BTreeMap<String, WriteJob>,
    older: BTreeMap<String, WriteJob>,
) -> BTreeMap<String, WriteJob> {
    for (plugin, older) in older {
        let job = match jobs.remove(&plugin) {
            Some(job) => job.after(older),
            None => older,
        };
        jobs.insert(plugin, job);
    }
    jobs
}

impl HistoryStore {
    /// The versions in the folder `dir`. Does not read or create anything yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(Arc::new(Inner {
            dir: dir.to_owned(),
            folder: Mutex::new(HistoryFolder::new(dir)),
            queue: Mutex::default(),
            done: watch::Sender::new(0),
        }))
    }

    /// The state of a plugin that an earlier process kept.
    pub(crate) async fn recall(&self, plugin: &str) -> Option<PersistedState> {
        // The plugin may have been removed from the configuration a moment ago, and be back.
        self.flushed().await;
        let (folder, name) = (HistoryFolder::new(&self.0.dir), plugin.to_owned());
        let read = tokio::task::spawn_blocking(move || folder.read(&name)).await;
        match read {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => {
                warn!(
                    plugin,
                    "the stored versions of the plugin cannot be used: {error}; the version in the file goes live"
                );
                None
            }
            Err(_) => None,
        }
    }

    /// The component of a kept version, undamaged.
    ///
    /// # Errors
    /// Returns [`LoadError::Read`] if it is missing or damaged, and [`LoadError::TooLarge`] if it has more than
    /// `bytes_max` bytes.
    pub(crate) async fn component(
        &self,
        plugin: &str,
        hash: &Sha256,
        bytes_max: usize,
    ) -> Result<Arc<[u8]>, LoadError> {
        let path = HistoryFolder::new(&self.0.dir).component(plugin, hash);
        let bytes = source::read(&path, bytes_max).await?;
        if Sha256::of(&bytes) != *hash {
            let reason = "is damaged: its sha256 does not match its name".to_owned();
            return Err(LoadError::Read { path, reason });
        }
        Ok(bytes)
    }

    /// Queues `state` for writing, with the `component` of its live version if that may be new. Does not wait.
    pub(crate) fn keep(&self, plugin: &str, state: PersistedState, component: Option<Arc<[u8]>>) {
        let component = component.map(|bytes| (state.live.sha256, bytes));
        let job = WriteJob {
            state,
            components: component.into_iter().collect(),
        };
        let mut queue = self.0.queue();
        let job = match queue.jobs.remove(plugin) {
            Some(older) => job.after(older),
            None => job,
        };
        queue.jobs.insert(plugin.to_owned(), job);
        queue.number += 1;
        if !std::mem::replace(&mut queue.running, true) {
            let inner = self.0.clone();
            tokio::task::spawn_blocking(move || inner.write());
        }
    }

    /// Waits, for a bounded time, until a write of everything that came in so far was attempted.
    pub(crate) async fn flushed(&self) {
        let number = self.0.queue().number;
        let mut done = self.0.done.subscribe();
        let settled = done.wait_for(|done| *done >= number);
        if tokio::time::timeout(FLUSH_TIME_MAX, settled).await.is_err() {
            warn!(
                dir = %self.0.dir.display(),
                "the disk has not accepted the versions of plugins for {FLUSH_TIME_MAX:?}; after a crash the \
                 previous one would be live"
            );
        }
    }

    /// Why a plugin's live version would not be live after a restart; `None` if it would.
    pub(crate) fn failure(&self, plugin: &str) -> Option<String> {
        self.0.queue().failures.get(plugin).cloned()
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until the queue is empty. Only one thread does so at a time.
    fn write(&self) {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        // Failed jobs wait for the next change of any plugin, when the disk may have room again.
        let mut failed = BTreeMap::new();
        loop {
            let (jobs, number) = {
                let mut queue = self.queue();
                if queue.jobs.is_empty() {
                    queue.jobs = failed;
                    queue.running = false;
                    return;
                }
                (std::mem::take(&mut queue.jobs), queue.number)
            };
            for (plugin, job) in with_older(jobs, std::mem::take(&mut failed)) {
                let written = folder.write(&plugin, &job.state, &job.components);
                self.report(&plugin, &written);
                if written.is_err() {
                    failed.insert(plugin, job);
                }
            }
            self.done.send_replace(number);
        }
    }

    fn report(&self, plugin: &str, written: &Result<(), FolderError>) {
        let mut queue = self.queue();
        match written {
            Ok(()) => {
                debug!(plugin, "the plugin's versions are kept");
                if queue.failures.remove(plugin).is_some() {
                    info!(plugin, "the plugin's versions are kept again");
                }
            }
            Err(error) => {
                error!(
                    plugin,
                    "the plugin's versions are not kept: {error}; the server continues, and a restart begins with \
                     the versions that were kept before"
                );
                queue.failures.insert(plugin.to_owned(), error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::history::state::tests::state;

    fn component(number: u8) -> Option<Arc<[u8]>> {
        Some([number].into())
    }

    #[tokio::test]
    async fn the_latest_state_is_kept_with_the_components_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let versions = HistoryStore::new(&dir.path().join("versions"));
        for number in 1..=20 {
            versions.keep("a", state(number, &[number - 1]), component(number));
        }
        versions.flushed().await;
        assert_eq!(versions.failure("a"), None);
        let recalled = versions.recall("a").await;
        assert_eq!(recalled, Some(state(20, &[19])));
        let hash = Sha256::of(&[20]);
        let bytes = versions.component("a", &hash, 1).await.unwrap();
        assert_eq!(*bytes, [20]);
        assert!(matches!(
            versions.component("a", &hash, 0).await,
            Err(LoadError::TooLarge { .. })
        ));
    }

    #[tokio::test]
    async fn a_failed_write_is_reported_and_repeated_with_the_next_change() {
        let dir = tempfile::tempdir().unwrap();
        // A file where the folder should be.
        let path = dir.path().join("versions");
        fs::write(&path, "").unwrap();
        let versions = HistoryStore::new(&path);
        versions.keep("a", state(1, &[]), component(1));
        versions.flushed().await;
        let failure = versions.failure("a").unwrap();
        assert!(failure.contains("versions"), "{failure}");
        fs::remove_file(&path).unwrap();
        versions.keep("b", state(2, &[]), component(2));
        versions.flushed().await;
        assert_eq!(versions.failure("a"), None);
        assert_eq!(versions.recall("a").await, Some(state(1, &[])));
    }

    #[tokio::test]
    async fn a_damaged_component_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let versions = HistoryStore::new(&dir.path().join("versions"));
        versions.keep("a", state(1, &[]), component(1));
        versions.flushed().await;
        let hash = Sha256::of(&[1]);
        let path = HistoryFolder::new(&versions.0.dir).component("a", &hash);
        fs::write(path, "x").unwrap();
        let error = versions.component("a", &hash, 10).await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
