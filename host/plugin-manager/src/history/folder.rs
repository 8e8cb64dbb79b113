//! The folder of all plugins' versions. Everything here blocks.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use signalbox_plugin_runtime::{CacheError, Sha256, private_folder};

use super::{crash, state::PersistedState};

const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
const COMPONENT_EXTENSION: &str = "wasm";
const TEMPORARY_EXTENSION: &str = "tmp";

/// The maximum size of a state that is read, in bytes. A state with 20 versions has about 10 KiB.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// Why versions could not be kept or restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    /// A file or folder cannot be created, read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other users could put files there.
    #[error(
        "{}: belongs to another user or can be written by others; what is in it cannot be trusted (chmod 700)", .0.display()
    )]
    Untrusted(PathBuf),
    /// Another server keeps its versions there.
    #[error("{}: another server keeps its versions there; give each its own (plugin_versions.dir)", .0.display())]
    Taken(PathBuf),
    /// The state cannot be understood.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The component of the live version is missing.
    #[error("{}: the component of the live version is not there; push it again", .0.display())]
    Missing(PathBuf),
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    |source| FolderError::Io { path, source }
}

/// Components by their hash.
pub(super) type ComponentIndex = BTreeMap<Sha256, Arc<[u8]>>;

/// The folder of all plugins' versions.
#[derive(Debug)]
pub(super) struct HistoryFolder {
    dir: PathBuf,
    /// Held from the first write on, so that only one server writes. The operating system releases it when the process
    /// ends, however that happens.
    lock: Option<File>,
}

impl HistoryFolder {
    /// Does not read or create anything yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            lock: None,
        }
    }

    /// The path of a plugin's component, if it is kept.
    pub(super) fn component(&self, plugin: &str, hash: &Sha256) -> PathBuf {
        self.dir
            .join(plugin)
            .join(hash.to_string())
            .with_extension(COMPONENT_EXTENSION)
    }

    /// The state of a plugin that was last written; `None` if there is none.
    pub(super) fn read(&self, plugin: &str) -> Result<Option<PersistedState>, FolderError> {
        let dir = self.dir.join(plugin);
        let path = dir.join(STATE_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(&path)(error)),
        };
        trusted(&self.dir)?;
        trusted(&dir)?;
        let mut bytes = Vec::new();
        file.take(STATE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(io(&path))?;
        let state = PersistedState::from_json(&bytes);
        state
            .map(Some)
            .map_err(|reason| FolderError::Malformed { path, reason })
    }

    /// Writes the state of a plugin together with those of its components that are not on disk yet, and removes
    /// components that the state does not name.
    pub(super) fn write(
        &mut self,
        plugin: &str,
        state: &PersistedState,
        components: &ComponentIndex,
    ) -> Result<(), FolderError> {
        self.lock()?;
        let dir = self.dir.join(plugin);
        if !dir.is_dir() {
            trusted(&dir)?;
            sync(&self.dir)?;
        }
        trusted(&dir)?;
        for hash in state.components() {
            if let Some(bytes) = components.get(hash) {
                let path = self.component(plugin, hash);
                if !holds(&path, hash, bytes.len()) {
                    replace(&path, bytes, "component")?;
                }
            }
        }
        let state = self.with_what_is_there(plugin, state)?;
        replace(&dir.join(STATE_FILE), &state.to_json(), "state")?;
        prune(&dir, &state).map_err(io(&dir))
    }

    /// `state` without earlier versions whose components could not be kept when they were live.
    fn with_what_is_there(
        &self,
        plugin: &str,
        state: &PersistedState,
    ) -> Result<PersistedState, FolderError> {
        let live = self.component(plugin, &state.live.sha256);
        if !live.is_file() {
            return Err(FolderError::Missing(live));
        }
        let mut state = state.clone();
        state.earlier.retain(|earlier| {
            let component = self.component(plugin, &earlier.version.sha256);
            component.is_file()
        });
        Ok(state)
    }

    fn lock(&mut self) -> Result<(), FolderError> {
        if self.lock.is_some() {
            return Ok(());
        }
        trusted(&self.dir)?;
        let path = self.dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(FolderError::Taken(self.dir.clone())),
            Err(TryLockError::Error(error)) => Err(io(&path)(error)),
        }
    }
}

/// Creates a folder if it is missing, and checks that only this user may write to it.
fn trusted(dir: &Path) -> Result<(), FolderError> {
    private_folder(dir).map_err(|error| match error {
        CacheError::Untrusted(path) => FolderError::Untrusted(path),
        CacheError::Io { path, source } => FolderError::Io { path, source },
        CacheError::Random => io(dir)(io::Error::other(error.to_string())),
    })
}

/// Whether the file already holds this component.
fn holds(path: &Path, component: &Sha256, bytes: usize) -> bool {
    // A file that was truncated or has grown is not worth reading.
    let length = fs::metadata(path).map(|metadata| metadata.len());
    length.is_ok_and(|length| length == bytes as u64)
        && fs::read(path).is_ok_and(|held| Sha256::of(&held) == *component)
}

/// Replaces a file atomically: whenever the process or the machine stops, the file has either the old content or the
/// new one.
fn replace(path: &Path, bytes: &[u8], what: &str) -> Result<(), FolderError> {
    let step = |step: &str| crash::point(&format!("{what}-{step}"));
    let temporary = path.with_extension(TEMPORARY_EXTENSION);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        step("half");
        file.write_all(rest)?;
        step("written");
        file.sync_all()?;
        step("synced");
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        // The temporary file may be what fills the disk.
        let _ = fs::remove_file(&temporary);
        return Err(io(path)(error));
    }
    step("renamed");
    sync(path.parent().unwrap_or(Path::new(".")))?;
    step("kept");
    Ok(())
}

fn sync(dir: &Path) -> Result<(), FolderError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(io(dir))
}

/// Removes components that the state does not name, and files that were never completed.
fn prune(dir: &Path, state: &PersistedState) -> io::Result<()> {
    let named: Vec<_> = state.components().map(Sha256::to_string).collect();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().and_then(OsStr::to_str);
        let stem = path.file_stem().and_then(OsStr::to_str);
        let superfluous = match extension {
            Some(TEMPORARY_EXTENSION) => true,
            Some(COMPONENT_EXTENSION) => {
                !stem.is_some_and(|stem| named.iter().any(|name| name == stem))
            }
            _ => false,
        };
        if superfluous {
            fs::remove_file(&path)?;
            crash::point("pruned");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::history::state::tests::state;

    fn components(numbers: &[u8]) -> ComponentIndex {
        let components = numbers.iter().map(|number| {
            let bytes: Arc<[u8]> = [*number].into();
            (Sha256::of(&bytes), bytes)
        });
        components.collect()
    }

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn written_components_are_read_and_unreferenced_ones_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = HistoryFolder::new(&dir.path().join("versions"));
        assert_eq!(folder.read("a").unwrap(), None);
        let first = state(1, &[]);
        folder.write("a", &first, &components(&[1])).unwrap();
        assert_eq!(folder.read("a").unwrap(), Some(first));
        let second = state(2, &[1]);
        folder.write("a", &second, &components(&[2])).unwrap();
        assert_eq!(folder.read("a").unwrap(), Some(second));
        let plugin = dir.path().join("versions/a");
        assert_eq!(files(&plugin).len(), 3);
        // A file that a crash left behind, and an unrelated file.
        fs::write(plugin.join("x.tmp"), "x").unwrap();
        fs::write(plugin.join("notes.txt"), "x").unwrap();
        folder
            .write("a", &state(3, &[]), &components(&[3]))
            .unwrap();
        let name = folder.component("a", &Sha256::of(&[3]));
        let name = name.file_name().unwrap().to_str().unwrap();
        let mut expected = [name, "notes.txt", "state.json"];
        expected.sort_unstable();
        assert_eq!(files(&plugin), expected);
        assert_eq!(folder.read("b").unwrap(), None);
    }

    #[test]
    fn a_component_that_was_damaged_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = HistoryFolder::new(dir.path());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        folder
            .write("a", &state(1, &[]), &components(&[1]))
            .unwrap();
        let component = folder.component("a", &Sha256::of(&[1]));
        for damage in [&b""[..], b"x"] {
            fs::write(&component, damage).unwrap();
            folder
                .write("a", &state(1, &[]), &components(&[1]))
                .unwrap();
            assert_eq!(fs::read(&component).unwrap(), [1]);
        }
    }

    #[test]
    fn a_state_never_names_a_component_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = HistoryFolder::new(&dir.path().join("versions"));
        let missing = folder.write("a", &state(1, &[]), &components(&[]));
        assert!(matches!(missing, Err(FolderError::Missing(_))));
        assert_eq!(folder.read("a").unwrap(), None);
        folder
            .write("a", &state(1, &[2]), &components(&[1]))
            .unwrap();
        assert_eq!(folder.read("a").unwrap(), Some(state(1, &[])));
    }

    #[test]
    fn two_servers_do_not_write_to_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("versions");
        let mut one = HistoryFolder::new(&path);
        let mut other = HistoryFolder::new(&path);
        one.write("a", &state(1, &[]), &components(&[1])).unwrap();
        let refused = other.write("a", &state(2, &[]), &components(&[2]));
        let error = refused.unwrap_err();
        assert!(matches!(error, FolderError::Taken(_)), "{error}");
        // Reading is still allowed.
        assert_eq!(other.read("a").unwrap(), Some(state(1, &[])));
        drop(one);
        other.write("a", &state(2, &[]), &components(&[2])).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("versions");
        let mut folder = HistoryFolder::new(&path);
        folder
            .write("a", &state(1, &[]), &components(&[1]))
            .unwrap();
        fs::set_permissions(path.join("a"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(folder.read("a"), Err(FolderError::Untrusted(_))));
        let written = folder.write("a", &state(1, &[]), &components(&[]));
        assert!(matches!(written, Err(FolderError::Untrusted(_))));
    }

    #[test]
    fn a_state_that_cannot_be_understood_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = HistoryFolder::new(&dir.path().join("versions"));
        folder
            .write("a", &state(1, &[]), &components(&[1]))
            .unwrap();
        let path = dir.path().join("versions/a/state.json");
        fs::write(path, "{").unwrap();
        let error = folder.read("a").unwrap_err().to_string();
        assert!(error.contains("a/state.json: "), "{error}");
    }
}
