//! Where a test may end the process, as `kill -9` or a loss of power would.

/// Ends the process if a test asked for it at the step `name`. Builds that are released have nothing of this.
#[cfg(debug_assertions)]
pub(in crate::plugin) fn point(name: &str) {
    use rustix::process::{Signal, getpid, kill_process};

    /// Names the step. Not one of the server's own variables: it is none that an operator may set.
    const VARIABLE: &str = "CRASH_AT";

    if std::env::var_os(VARIABLE).is_some_and(|step| step == name) {
        // A process that cannot kill itself would fail the test that asked for it.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(in crate::plugin) const fn point(_name: &str) {}
