//! Takes the place of the check of an address of Redis in a build without the feature `redis`, which connects to none.

/// Accepts everything.
pub(super) fn check(_: &str) -> Result<(), String> {
    Ok(())
}
