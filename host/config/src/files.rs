//! Short texts that the configuration reads from separate files: secrets and keys.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// The text of the file at `path`, which must be UTF-8 and at most `bytes_max` long.
///
/// # Errors
/// The reason, and how to fix it. It contains nothing of the text.
pub fn read_text(path: &Path, bytes_max: usize) -> Result<String, String> {
    let unreadable = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "let the user of the server read it",
            _ => "check the path and who may read it",
        };
        format!("cannot be read: {error}; {advice}")
    };
    // Reading a pipe could block, and a device has no end.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a file; name one".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() > bytes_max {
        return Err(format!(
            "is larger than {} KiB; is it the right file?",
            bytes_max >> 10
        ));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text; is it the right file?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "x".repeat(1024)).unwrap();
        assert_eq!(read_text(&file, 1024).map(|text| text.len()), Ok(1024));
        let error = read_text(&file, 1023).unwrap_err();
        assert!(error.contains("is larger than"), "{error}");
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, b"hush\xff").unwrap();
        for (path, reason) in [
            (file.as_path(), "is not UTF-8"),
            (folder.path(), "is not a file"),
            (Path::new("/dev/zero"), "is not a file"),
            (&folder.path().join("missing"), "cannot be read"),
        ] {
            let error = read_text(path, 1024).unwrap_err();
            assert!(error.contains(reason) && !error.contains("hush"), "{error}");
        }
    }
}
