//! The rules for a user ID.

use super::USER_BYTES_MAX;

/// Why a text is not a user ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidUserId {
    /// It is not 1 to 255 bytes long.
    Length,
    /// It is only white space.
    Blank,
}

/// Checks that `text` is a valid user ID.
pub(super) fn check(text: &str) -> Result<(), InvalidUserId> {
    if !(1..=USER_BYTES_MAX).contains(&text.len()) {
        return Err(InvalidUserId::Length);
    }
    if text.chars().all(char::is_whitespace) {
        return Err(InvalidUserId::Blank);
    }
    Ok(())
}
