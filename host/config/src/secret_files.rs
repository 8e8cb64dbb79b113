//! Secrets in separate files, which are named by variables that end in `_FILE`.

use std::path::Path;

use super::{
    Environment,
    errors::{ConfigError, SettingPlace},
    files::read_text,
    keys::{FILE_SUFFIX, Key, ValueKind},
    settings::{self, Settings},
};

/// Largest file with a secret, in bytes.
const SECRET_FILE_BYTES_MAX: usize = 64 << 10;

/// Sets `key` to the contents of the file that `<variable>_FILE` names, relative to `folder`, without surrounding white
/// space. An empty variable counts as not set.
pub(super) fn overlay(
    settings: &mut Settings,
    key: &'static Key,
    variable: &str,
    environment: &Environment,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) {
    let file_variable = format!("{variable}{FILE_SUFFIX}");
    let set = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    let Some(file) = set(&file_variable) else {
        return;
    };
    let mut refuse = |message: String| {
        errors.push(ConfigError {
            place: SettingPlace::Variable(file_variable.clone()),
            key: key.full_name(),
            message,
        });
    };
    if set(variable).is_some() {
        return refuse(format!("is set, and so is {variable}; keep one of them"));
    }
    let path = folder.join(file);
    settings.secret_files.insert(path.clone());
    let text = match read_secret(&path) {
        Ok(text) => text,
        Err(message) => return refuse(message),
    };
    let text = match key.kind {
        // One entry per line, or separated by commas as in a variable.
        ValueKind::Texts(_) => text.replace(['\r', '\n'], ","),
        _ => text,
    };
    if let Some(section) = settings.sections.get_mut(key.section) {
        settings::set_from_variable(section, key, &file_variable, &text, errors);
    }
}

/// The contents of a file with a secret, without surrounding white space. The error names the file.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_text(path, SECRET_FILE_BYTES_MAX)
        .map_err(|reason| format!("{} {reason}", path.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim();
    if text.is_empty() {
        return Err(format!(
            "{} is empty; write the secret into it",
            path.display()
        ));
    }
    Ok(text.to_owned())
}
