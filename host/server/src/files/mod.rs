//! Notices that a file has changed.

mod stamp;
mod watcher;

pub use self::{stamp::Stamp, watcher::FileWatcher};
