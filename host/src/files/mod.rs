//! Noticing that a file changed.

mod stamp;
mod watcher;

pub use self::{stamp::Stamp, watcher::FileWatcher};
