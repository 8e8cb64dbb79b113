//! What the ID of a user may be.

use super::USER_BYTES_MAX;

/// Why a text is no ID of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoUser {
    /// It is not 1 to 255 bytes long.
    Length,
    /// It is nothing but white space.
    Blank,
    /// It holds a control character, which no log and no key of Redis should.
    Control,
}

/// Whether `text` is the ID of a user.
pub(super) fn check(text: &str) -> Result<(), NoUser> {
    if !(1..=USER_BYTES_MAX).contains(&text.len()) {
        return Err(NoUser::Length);
    }
    if text.chars().any(char::is_control) {
        return Err(NoUser::Control);
    }
    if text.chars().all(char::is_whitespace) {
        return Err(NoUser::Blank);
    }
    Ok(())
}
