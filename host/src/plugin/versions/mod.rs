//! The versions of plugins that were live, on disk: what a restart goes on with, and what can be gone back to after one.
//!
//! A folder for each plugin holds `state.json` ([`state`]) and, for every version that stands in it, the component as
//! `<sha256>.wasm`. [`folder`] writes and reads them, [`writer`] does so off the threads that serve.
//!
//! The order, and what a crash leaves at each step:
//!
//! 1. The new version goes live. A disk that is slow, full or gone holds up no swap. A crash here or at any step until 4
//!    leaves the old state, whose components are all there: the next start finds what was live before, and a changed file
//!    as one that it has not seen, which it tries as ever.
//! 2. The component is written beside its place, synced, and renamed into it, and the folder is synced. It stands in no
//!    state yet; the next write that does not want it removes it.
//! 3. `state.json` is written beside its place and synced. All components that it names are there.
//! 4. It is renamed into its place: from here on the next start finds the new version. Before the folder is synced a loss of
//!    power may undo this and leaves the old state, whose components are still there.
//! 5. Components that the new state does not name, and what earlier crashes left, are removed.
//! 6. Who asked for the swap is answered.

mod crash;
mod folder;
mod state;
mod writer;

pub(super) use self::{
    crash::point as crash_point,
    state::{Digest, Earlier, Kept, RolledBack, State},
    writer::Versions,
};
