//! Distinguishes one content of a file from another.

use std::{
    fs::{self, File, Metadata},
    hash::{DefaultHasher, Hasher},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A file that changed less than this ago may change again without a different stamp: the clocks of file systems are
/// coarse, some of them as coarse as a second.
const CLOCK_GRAIN: Duration = Duration::from_secs(2);

const CHUNK_BYTES: usize = 64 << 10;

/// The state of a file at one moment. Two stamps of one path differ if the content differs, even if the file was
/// replaced by one of the same size whose modification time was set to that of the old one (`touch -r`,
/// `cp --preserve`, `rsync --times`).
///
/// Links are followed, so a link that now points elsewhere counts as changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `None` if there is no such file.
    file: Option<Inode>,
    /// A hash of the content, if that may change without changing `file`.
    content: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Set by the system on each change of content or metadata; it cannot be set back.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file at `path` now. Reads the whole file if it changed within the last seconds, so do not call
    /// it on threads that serve clients.
    pub fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok().filter(Metadata::is_file);
        let file = metadata.as_ref().map(Inode::of);
        let is_fresh = file.is_some_and(|file| file.is_fresh(SystemTime::now()));
        Self {
            file,
            content: is_fresh.then(|| content(path).ok()).flatten(),
        }
    }

    /// Whether the file differs from its state at the time of `earlier`.
    pub fn differs_from(&self, earlier: &Self) -> bool {
        let content = self.content.zip(earlier.content);
        self.file != earlier.file || content.is_some_and(|(now, then)| now != then)
    }
}

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            number: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(0));
        now.abs_diff(changed) <= CLOCK_GRAIN
    }
}

fn content(path: &Path) -> io::Result<u64> {
    let (mut file, mut hasher) = (File::open(path)?, DefaultHasher::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            read => hasher.write(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Whether `change` is noticed. It gets the path of a file that contains `old`.
    fn notices(change: impl FnOnce(&Path)) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let before = Stamp::of(&path);
        assert!(!Stamp::of(&path).differs_from(&before), "nothing happened");
        change(&path);
        Stamp::of(&path).differs_from(&before)
    }

    fn modified(path: &Path) -> SystemTime {
        fs::metadata(path).unwrap().modified().unwrap()
    }

    fn set_modified(path: &Path, to: SystemTime) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(to).unwrap();
    }

    #[test]
    fn a_file_written_in_place_with_the_same_size_and_time_has_changed() {
        assert!(notices(|path| {
            let before = modified(path);
            fs::write(path, "new").unwrap();
            set_modified(path, before);
        }));
    }

    #[test]
    fn a_file_replaced_by_a_rename_with_the_same_size_and_time_has_changed() {
        assert!(notices(|path| {
            let other = path.with_extension("new");
            fs::write(&other, "new").unwrap();
            set_modified(&other, modified(path));
            fs::rename(other, path).unwrap();
        }));
    }

    #[test]
    fn a_second_write_within_one_tick_of_the_clock_has_changed_the_file() {
        for _ in 0..50 {
            assert!(notices(|path| fs::write(path, "new").unwrap()));
        }
    }

    #[test]
    fn the_content_is_looked_at_if_the_file_system_has_no_finer_clock() {
        let file = Some(Inode {
            device: 1,
            number: 1,
            bytes: 3,
            modified: (1, 0),
            changed: (1, 0),
        });
        let stamp = |content| Stamp { file, content };
        assert!(stamp(Some(1)).differs_from(&stamp(Some(2))));
        assert!(!stamp(None).differs_from(&stamp(Some(2))));
    }

    #[test]
    fn a_link_that_points_to_another_file_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let [old, new, link] = ["old", "new", "link"].map(|name| dir.path().join(name));
        fs::write(&old, "one").unwrap();
        fs::write(&new, "two").unwrap();
        set_modified(&new, modified(&old));
        symlink(&old, &link).unwrap();
        let before = Stamp::of(&link);
        fs::remove_file(&link).unwrap();
        symlink(&new, &link).unwrap();
        assert!(Stamp::of(&link).differs_from(&before));
    }

    #[test]
    fn a_folder_of_links_that_is_swapped_as_a_whole_has_changed_its_files() {
        // This is how Kubernetes updates a ConfigMap: `file` -> `..data/file`, `..data` -> the folder of a version.
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("file"), text).unwrap();
        }
        set_modified(&at("..2/file"), modified(&at("..1/file")));
        symlink("..1", at("..data")).unwrap();
        symlink("..data/file", at("file")).unwrap();
        let before = Stamp::of(&at("file"));
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(Stamp::of(&at("file")).differs_from(&before));
    }

    #[test]
    fn a_file_that_goes_or_comes_has_changed() {
        assert!(notices(|path| fs::remove_file(path).unwrap()));
        let missing = Stamp::of(Path::new("/nowhere/at/all"));
        assert!(!missing.differs_from(&missing.clone()));
    }

    #[test]
    fn a_file_that_has_not_changed_lately_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let inode = Inode::of(&fs::metadata(&path).unwrap());
        let now = SystemTime::now();
        assert!(inode.is_fresh(now));
        assert!(!inode.is_fresh(now + Duration::from_secs(10)));
        assert!(!inode.is_fresh(now - Duration::from_secs(10)));
    }
}
