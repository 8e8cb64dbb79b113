//! Points at which a test may end the process, as `kill -9` or a power failure would.

/// Ends the process if a test requested that at the step `name`. Release builds contain none of this.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    use rustix::process::{Signal, getpid, kill_process};

    /// Names the step. It is not one of the server's own variables, because operators are not meant to set it.
    const VARIABLE: &str = "CRASH_AT";

    if std::env::var_os(VARIABLE).is_some_and(|step| step == name) {
        // If the process cannot kill itself, the test that requested it fails.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn point(_name: &str) {}
