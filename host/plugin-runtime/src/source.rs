//! Reads the file of a component, up to the size that a component may have.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use super::load_error::LoadError;

/// Reads the file, which may have at most `bytes_max` bytes. Runs off the serving threads.
///
/// # Errors
/// Returns [`LoadError::Read`] if the file cannot be read or is not a regular file, and [`LoadError::TooLarge`] if it
/// has more than `bytes_max` bytes.
pub async fn read(path: &Path, bytes_max: usize) -> Result<Arc<[u8]>, LoadError> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&file, bytes_max));
    read.await.unwrap_or_else(|error| {
        Err(LoadError::Read {
            path: path.to_owned(),
            reason: error.to_string(),
        })
    })
}

fn read_now(path: &Path, bytes_max: usize) -> Result<Arc<[u8]>, LoadError> {
    let failed = |error: io::Error| LoadError::Read {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // Opening a pipe would block until a writer opens it too.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(LoadError::Read {
            path: path.to_owned(),
            reason: "is no file".to_owned(),
        });
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    let limit = bytes_max as u64 + 1;
    if metadata.len() < limit {
        let file = File::open(path).map_err(failed)?;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    let size = metadata.len().max(bytes.len() as u64);
    if size >= limit {
        return Err(LoadError::TooLarge {
            bytes: size,
            max: bytes_max,
        });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wasm");
        std::fs::write(&file, [7; 10]).unwrap();
        assert_eq!(read(&file, 10).await.unwrap().len(), 10);
        assert!(matches!(
            read(&file, 9).await,
            Err(LoadError::TooLarge { bytes: 10, max: 9 })
        ));
        let refused = read(dir.path(), 10).await.unwrap_err();
        assert!(refused.to_string().ends_with("is no file"), "{refused}");
        assert!(matches!(
            read(&dir.path().join("b"), 10).await,
            Err(LoadError::Read { .. })
        ));
    }
}
