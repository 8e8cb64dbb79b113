//! Compiled plugins on disk, so that the second load of a component takes milliseconds.
//!
//! Loading compiled code amounts to running it, so a file is accepted only if this server wrote it: it carries an
//! HMAC-SHA256 under a key in the same folder. Only this user can read the key, and nobody else may write to the
//! folder. The HMAC also covers the sha256 of the component and wasmtime's compatibility hash, so a file that was
//! renamed, truncated, or copied from another machine or another version is ignored and written again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{constant_time, hmac, rand};
use tracing::{debug, warn};

use super::sha256::Sha256;

/// Starts every file. The number is the version of the file layout.
const MAGIC: &[u8; 16] = b"signalbox-aot-1\n";
const TAG_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "cwasm";

/// The extension of a file that is being written, and the age at which its writer must have died.
const TEMPORARY_EXTENSION: &str = "tmp";
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

/// The most files and bytes that are kept; the least recently used files are removed first. A Rust component takes
/// several hundred KB, one that contains an interpreter about 50 MB.
const FILES_MAX: usize = 256;
const BYTES_MAX: u64 = 2 << 30;

/// A folder of compiled components.
#[derive(Debug)]
pub(super) struct AotCache {
    dir: PathBuf,
    key: hmac::Key,
    compatibility: u64,
}

/// Why a folder cannot serve as the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder or a file in it cannot be created, read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another user could put files there.
    #[error("{}: belongs to another user or can be written by others; compiled code from there cannot be trusted (chmod 700)", .0.display())]
    Untrusted(PathBuf),
    /// The system provides no random numbers.
    #[error("the system gives no random numbers for a key")]
    Random,
}

impl AotCache {
    /// Opens the folder `dir`, creating it if needed, for an engine with this `compatibility` hash.
    ///
    /// # Errors
    /// Returns [`CacheError`] if the folder or its key cannot be used or trusted.
    pub(super) fn open(dir: &Path, compatibility: u64) -> Result<Self, CacheError> {
        private_folder(dir)?;
        let key = read_or_make_key(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            compatibility,
        })
    }

    /// The compiled form of a component, if this server wrote it for this engine.
    pub(super) fn get(&self, component: &Sha256) -> Option<Vec<u8>> {
        let path = self.path(component);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "a compiled plugin cannot be read; compiling again");
                return None;
            }
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let body = bytes
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.split_at_checked(TAG_BYTES));
        let trusted = body.is_some_and(|(tag, code)| {
            let own = self.tag(component, code);
            constant_time::verify_slices_are_equal(own.as_ref(), tag).is_ok()
        });
        if !trusted {
            warn!(path = %path.display(), "a compiled plugin is damaged or foreign; compiling again");
            return None;
        }
        // Marks the file as used, so that it is kept. If the time cannot be set, the time of writing counts.
        let _ = file.set_modified(SystemTime::now());
        bytes.drain(..MAGIC.len() + TAG_BYTES);
        Some(bytes)
    }

    /// Stores the compiled form of a component. If this fails, the component is only compiled again later.
    pub(super) fn put(&self, component: &Sha256, code: &[u8]) {
        let path = self.path(component);
        match self.write(&path, component, code) {
            Ok(()) => debug!(path = %path.display(), bytes = code.len(), "compiled plugin kept"),
            Err(error) => {
                warn!(path = %path.display(), %error, "a compiled plugin cannot be kept; the next start compiles it again")
            }
        }
        if let Err(error) = self.prune(BYTES_MAX) {
            warn!(dir = %self.dir.display(), %error, "old compiled plugins cannot be removed");
        }
    }

    /// Not synced to the disk: a file that a crash truncates fails the HMAC.
    fn write(&self, path: &Path, component: &Sha256, code: &[u8]) -> io::Result<()> {
        let tag = self.tag(component, code);
        let temporary = temporary(&self.dir);
        let written = write_private(&temporary, &[MAGIC, tag.as_ref(), code])
            .and_then(|_| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the least recently used files above the limits, and unfinished files.
    fn prune(&self, bytes_max: u64) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let extension = path.extension().unwrap_or_default();
            if extension != EXTENSION && extension != TEMPORARY_EXTENSION {
                continue;
            }
            // Another process may just have removed it.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            let modified = metadata.modified()?;
            if extension == EXTENSION {
                files.push((modified, metadata.len(), path));
            } else if modified.elapsed().is_ok_and(|age| age > TEMPORARY_AGE_MAX) {
                let _ = fs::remove_file(&path);
            }
        }
        files.sort();
        let mut bytes = 0;
        let kept = files
            .iter()
            .rev()
            .take(FILES_MAX)
            .take_while(|(_, size, _)| {
                bytes += size;
                bytes <= bytes_max
            })
            .count();
        files[..files.len() - kept]
            .iter()
            .try_for_each(|(_, _, path)| remove(path))
    }

    fn path(&self, component: &Sha256) -> PathBuf {
        self.dir.join(format!(
            "{}-{:016x}.{EXTENSION}",
            component, self.compatibility
        ))
    }

    fn tag(&self, component: &Sha256, code: &[u8]) -> hmac::Tag {
        let mut tag = hmac::Context::with_key(&self.key);
        tag.update(component.as_bytes());
        tag.update(&self.compatibility.to_le_bytes());
        tag.update(code);
        tag.sign()
    }
}

/// Creates the folder `dir` if it is missing, with access for this user only.
///
/// # Errors
/// Returns [`CacheError`] if it cannot be created, or if others may write to it.
pub fn private_folder(dir: &Path) -> Result<(), CacheError> {
    let io = |source| CacheError::Io {
        path: dir.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io)?;
    let metadata = fs::metadata(dir).map_err(io)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(CacheError::Untrusted(dir.to_owned()));
    }
    Ok(())
}

/// Removes a file that another process may just have removed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A name that no other writer uses.
fn temporary(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}.{number}.{TEMPORARY_EXTENSION}", std::process::id());
    dir.join(name)
}

/// Writes a file that only this user can read.
fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    Ok(file)
}

/// Reads the key in `dir`, or creates it. Servers that start at the same time agree on one key.
fn read_or_make_key(dir: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    let path = dir.join(KEY_FILE);
    let io = |source| CacheError::Io {
        path: path.clone(),
        source,
    };
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    rand::fill(&mut key).map_err(|_| CacheError::Random)?;
    let temporary = temporary(dir);
    let made = write_private(&temporary, &[&key])
        .and_then(|file| file.sync_all())
        // Unlike a rename, a link does not replace a key that another server has created in the meantime.
        .and_then(|()| match fs::hard_link(&temporary, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let _ = fs::remove_file(&temporary);
    made.map_err(io)?;
    read_key(&path)?.ok_or_else(|| io(io::ErrorKind::NotFound.into()))
}

/// Returns `None` if there is no key, or if a crash truncated it; a truncated key is removed.
fn read_key(path: &Path) -> Result<Option<[u8; KEY_BYTES]>, CacheError> {
    let io = |source| CacheError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(CacheError::Untrusted(path.to_owned()));
    }
    match fs::read(path).map_err(io)?.try_into() {
        Ok(key) => Ok(Some(key)),
        Err(_) => {
            warn!(path = %path.display(), "the key of the compiled plugins is damaged; they are compiled again under \
                a new one");
            fs::remove_file(path).map_err(io)?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path) -> AotCache {
        AotCache::open(dir, 7).unwrap()
    }

    #[test]
    fn cached_code_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        open(&path).put(&[1; 32].into(), b"code");
        assert_eq!(
            open(&path).get(&[1; 32].into()).as_deref(),
            Some(&b"code"[..])
        );
        assert_eq!(open(&path).get(&[2; 32].into()), None);
    }

    #[test]
    fn foreign_damaged_and_renamed_files_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine");
        let cache = open(&path);
        cache.put(&[1; 32].into(), b"code");
        let file = cache.path(&[1; 32].into());

        fs::copy(&file, cache.path(&[2; 32].into())).unwrap();
        assert_eq!(
            cache.get(&[2; 32].into()),
            None,
            "renamed to another component"
        );
        fs::copy(
            &file,
            AotCache::open(&path, 8).unwrap().path(&[1; 32].into()),
        )
        .unwrap();
        assert_eq!(
            AotCache::open(&path, 8).unwrap().get(&[1; 32].into()),
            None,
            "of another wasmtime"
        );

        let good = fs::read(&file).unwrap();
        for (what, bytes) in [
            ("cut", good[..good.len() - 1].to_vec()),
            ("empty", Vec::new()),
            ("one bit", {
                let mut b = good.clone();
                *b.last_mut().unwrap() ^= 1;
                b
            }),
            ("no tag", [MAGIC.as_slice(), b"code"].concat()),
        ] {
            fs::write(&file, bytes).unwrap();
            assert_eq!(cache.get(&[1; 32].into()), None, "{what}");
        }

        let foreign = open(&dir.path().join("theirs"));
        foreign.put(&[1; 32].into(), b"evil");
        fs::copy(foreign.path(&[1; 32].into()), &file).unwrap();
        assert_eq!(cache.get(&[1; 32].into()), None, "under another key");

        cache.put(&[1; 32].into(), b"code");
        assert!(cache.get(&[1; 32].into()).is_some());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            AotCache::open(dir.path(), 7),
            Err(CacheError::Untrusted(_))
        ));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        open(dir.path());
        fs::set_permissions(dir.path().join(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            AotCache::open(dir.path(), 7),
            Err(CacheError::Untrusted(_))
        ));
    }

    #[test]
    fn a_key_that_was_cut_short_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        open(&path).put(&[1; 32].into(), b"code");
        fs::write(path.join(KEY_FILE), b"").unwrap();
        let cache = open(&path);
        assert_eq!(cache.get(&[1; 32].into()), None, "under the lost key");
        cache.put(&[1; 32].into(), b"code");
        assert!(open(&path).get(&[1; 32].into()).is_some());
    }

    #[test]
    fn servers_that_start_at_the_same_time_share_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || open(path).put(&[number; 32].into(), b"code"));
            }
        });
        let cache = open(&path);
        assert!((0..8).all(|number| cache.get(&[number; 32].into()).is_some()));
    }

    #[test]
    fn old_temporary_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir.path().join("c"));
        let (old, new) = (cache.dir.join("1.0.tmp"), cache.dir.join("1.1.tmp"));
        for file in [&old, &new] {
            fs::write(file, b"half").unwrap();
        }
        let long_ago = SystemTime::now() - 2 * TEMPORARY_AGE_MAX;
        let file = OpenOptions::new().write(true).open(&old).unwrap();
        file.set_modified(long_ago).unwrap();
        cache.put(&[1; 32].into(), b"code");
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir.path().join("c"));
        for index in 0..FILES_MAX + 5 {
            cache.put(&Sha256::of(&index.to_le_bytes()), b"code");
        }
        let files = fs::read_dir(&cache.dir).unwrap().count();
        assert_eq!(files, FILES_MAX + 1, "the files and the key");
    }

    #[test]
    fn the_least_recently_used_files_are_removed_above_the_byte_limit() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir.path().join("c"));
        for number in 1..=3 {
            cache.put(&[number; 32].into(), b"code");
            let file = OpenOptions::new()
                .write(true)
                .open(cache.path(&[number; 32].into()))
                .unwrap();
            let age = Duration::from_secs(60 - u64::from(number));
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        assert!(cache.get(&[1; 32].into()).is_some(), "now it was used last");
        let size = fs::metadata(cache.path(&[1; 32].into())).unwrap().len();
        cache.prune(2 * size).unwrap();
        let kept = [1, 2, 3].map(|number| cache.path(&[number; 32].into()).exists());
        assert_eq!(kept, [true, false, true]);
    }
}
