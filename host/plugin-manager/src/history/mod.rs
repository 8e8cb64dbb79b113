//! The plugin versions that were live, on disk: a restart resumes with them, and operators can roll back to them
//! afterwards.
//!
//! Each plugin has a folder with `state.json` ([`state`]) and, for every version that the state names, the component as
//! `<sha256>.wasm`. [`folder`] writes and reads them, and [`writer`] does so off the serving threads.
//!
//! The order of the steps, and what a crash leaves behind at each:
//!
//! 1. The new version goes live. A disk that is slow, full or missing does not delay a swap. A crash here or at any
//!    step before 4 leaves the old state, whose components all exist: the next start finds the version that was live
//!    before, and treats a changed file as one that it has not seen, which it tries as always.
//! 2. The component is written to a temporary file next to its target, synced, and renamed into place, and the folder
//!    is synced. No state names it yet; the next write that does not need it removes it.
//! 3. `state.json` is written to a temporary file next to its target, and synced. All components that it names exist.
//! 4. It is renamed into place: from here on the next start finds the new version. Until the folder is synced, a power
//!    failure may undo this and leave the old state, whose components still exist.
//! 5. Components that the new state does not name, and the remains of earlier crashes, are removed.
//! 6. The caller that requested the swap gets its answer.

mod crash;
mod folder;
mod state;
mod writer;

pub use self::writer::FLUSH_TIME_MAX;
pub(super) use self::{
    crash::point as crash_point,
    state::{EarlierVersion, KeptVersion, PersistedState, RolledBackVersion},
    writer::HistoryStore,
};
