//! The rules for a user ID.

use signalbox_protocol::UserId;

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
    if UserId::parse(text).is_none() {
        return Err(InvalidUserId::Length);
    }
    if text.chars().all(char::is_whitespace) {
        return Err(InvalidUserId::Blank);
    }
    Ok(())
}
