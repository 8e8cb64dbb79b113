//! A temporary folder that is deleted with its owner.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A folder that only this process uses.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Creates an empty folder; `purpose` tells the folders of one process apart.
    pub(crate) fn new(purpose: &str) -> io::Result<Self> {
        let path =
            std::env::temp_dir().join(format!("signalbox-xtask-{purpose}-{}", std::process::id()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&path)?,
        }
        Ok(Self { path })
    }

    /// The path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Files that cannot be removed are left to the system's own cleanup of temporary files.
        let _ = fs::remove_dir_all(&self.path);
    }
}
