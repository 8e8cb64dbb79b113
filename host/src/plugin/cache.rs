//! Compiled plugins on disk, so that the second load of a component takes milliseconds.
//!
//! Loading compiled code is as good as running it, so a file is taken only when this server wrote it: it carries an
//! HMAC-SHA256 under a key that lies beside it, readable by this user alone, in a folder that nobody else may write
//! to. The HMAC covers the sha256 of the component and wasmtime's compatibility hash, so a file that was renamed,
//! cut, or copied from another machine or another version is passed over and written anew.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use aws_lc_rs::{digest, hmac, rand};
use tracing::{debug, warn};

/// Starts every file. The number counts the layouts.
const MAGIC: &[u8; 16] = b"signalbox-aot-1\n";
const TAG_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "cwasm";

/// Files that are kept; the oldest go first.
const FILES_MAX: usize = 64;

/// Sha256 of a component.
pub(super) type ComponentHash = [u8; 32];

/// The sha256 of `bytes`.
pub(super) fn hash(bytes: &[u8]) -> ComponentHash {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of compiled components.
#[derive(Debug)]
pub(super) struct AotCache {
    dir: PathBuf,
    key: hmac::Key,
    compatibility: u64,
}

/// Why a folder cannot be the cache.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    /// It cannot be made, read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What could not be done it to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could put files there.
    #[error("{}: belongs to another user or can be written by others; compiled code from there cannot be trusted (chmod 700)", .0.display())]
    Untrusted(PathBuf),
    /// The key has been damaged.
    #[error("{}: is not a key; remove the folder to start anew", .0.display())]
    Key(PathBuf),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a key")]
    Random,
}

impl AotCache {
    /// Opens the folder `dir`, made where it is missing, for an engine with this `compatibility` hash.
    ///
    /// # Errors
    /// [`CacheError`] where the folder or its key cannot be used or trusted.
    pub(super) fn open(dir: &Path, compatibility: u64) -> Result<Self, CacheError> {
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
        let key = read_or_make_key(&dir.join(KEY_FILE))?;
        Ok(Self {
            dir: dir.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            compatibility,
        })
    }

    /// The compiled form of a component, if this server wrote it for this engine.
    pub(super) fn get(&self, component: &ComponentHash) -> Option<Vec<u8>> {
        let path = self.path(component);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "a compiled plugin cannot be read; compiling anew");
                return None;
            }
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let body = bytes
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.split_at_checked(TAG_BYTES));
        let trusted = body.filter(|(tag, code)| {
            hmac::verify(&self.key, &self.signed(component, code), tag).is_ok()
        });
        let Some((_, code)) = trusted else {
            warn!(path = %path.display(), "a compiled plugin is damaged or foreign; compiling anew");
            return None;
        };
        Some(code.to_vec())
    }

    /// Keeps the compiled form of a component. A failure costs a compilation later, nothing else.
    pub(super) fn put(&self, component: &ComponentHash, code: &[u8]) {
        let path = self.path(component);
        match self.write(&path, component, code) {
            Ok(()) => debug!(path = %path.display(), bytes = code.len(), "compiled plugin kept"),
            Err(error) => {
                warn!(path = %path.display(), %error, "a compiled plugin cannot be kept; the next start compiles it again")
            }
        }
        if let Err(error) = self.prune() {
            warn!(dir = %self.dir.display(), %error, "old compiled plugins cannot be removed");
        }
    }

    fn write(&self, path: &Path, component: &ComponentHash, code: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .dir
            .join(format!("{}.{number}.tmp", std::process::id()));
        let tag = hmac::sign(&self.key, &self.signed(component, code));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                [MAGIC, tag.as_ref(), code]
                    .iter()
                    .try_for_each(|part| file.write_all(part))
            })
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the oldest files over the limit.
    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
            {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(FILES_MAX);
        files[..surplus]
            .iter()
            .try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, component: &ComponentHash) -> PathBuf {
        self.dir.join(format!(
            "{}-{:016x}.{EXTENSION}",
            hex(component),
            self.compatibility
        ))
    }

    fn signed(&self, component: &ComponentHash, code: &[u8]) -> Vec<u8> {
        [
            component.as_slice(),
            &self.compatibility.to_le_bytes(),
            code,
        ]
        .concat()
    }
}

fn read_or_make_key(path: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    let io = |source| CacheError::Io {
        path: path.to_owned(),
        source,
    };
    let mut key = [0; KEY_BYTES];
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            rand::fill(&mut key).map_err(|_| CacheError::Random)?;
            file.write_all(&key).map_err(io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path).map_err(io)?;
            if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0
            {
                return Err(CacheError::Untrusted(path.to_owned()));
            }
            let bytes = fs::read(path).map_err(io)?;
            key = bytes
                .try_into()
                .map_err(|_| CacheError::Key(path.to_owned()))?;
        }
        Err(error) => return Err(io(error)),
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path) -> AotCache {
        AotCache::open(dir, 7).unwrap()
    }

    #[test]
    fn what_was_put_comes_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        open(&path).put(&[1; 32], b"code");
        assert_eq!(open(&path).get(&[1; 32]).as_deref(), Some(&b"code"[..]));
        assert_eq!(open(&path).get(&[2; 32]), None);
    }

    #[test]
    fn foreign_damaged_and_renamed_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine");
        let cache = open(&path);
        cache.put(&[1; 32], b"code");
        let file = cache.path(&[1; 32]);

        fs::copy(&file, cache.path(&[2; 32])).unwrap();
        assert_eq!(cache.get(&[2; 32]), None, "renamed to another component");
        fs::copy(&file, AotCache::open(&path, 8).unwrap().path(&[1; 32])).unwrap();
        assert_eq!(
            AotCache::open(&path, 8).unwrap().get(&[1; 32]),
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
            assert_eq!(cache.get(&[1; 32]), None, "{what}");
        }

        let foreign = open(&dir.path().join("theirs"));
        foreign.put(&[1; 32], b"evil");
        fs::copy(foreign.path(&[1; 32]), &file).unwrap();
        assert_eq!(cache.get(&[1; 32]), None, "under another key");

        cache.put(&[1; 32], b"code");
        assert!(cache.get(&[1; 32]).is_some());
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
    fn the_number_of_files_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir.path().join("c"));
        for index in 0..FILES_MAX + 5 {
            cache.put(&hash(&index.to_le_bytes()), b"code");
        }
        let files = fs::read_dir(&cache.dir).unwrap().count();
        assert_eq!(files, FILES_MAX + 1, "the files and the key");
    }
}
