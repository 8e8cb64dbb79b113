//! The rules for a user ID.

use super::USER_BYTES_MAX;

/// Why a text is no ID of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoUser {
    /// It is not 1 to 255 bytes long.
    Length,
    /// It is nothing but white space.
    Blank,
}

/// Whether `text` is the ID of a user.
pub(super) fn check(text: &str) -> Result<(), NoUser> {
    if !(1..=USER_BYTES_MAX).contains(&text.len()) {
        return Err(NoUser::Length);
    }
    if text.chars().all(char::is_whitespace) {
        return Err(NoUser::Blank);
    }
    Ok(())
}
