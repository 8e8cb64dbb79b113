//! The versions of plugins that saw a message, for its sender.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signalbox_plugin_runtime::PluginVersion;

/// The versions that were called for one message, in the order of their first calls.
#[derive(Debug, Default)]
pub struct SeenVersions(Mutex<Vec<Arc<PluginVersion>>>);

impl SeenVersions {
    /// Notes a call.
    pub(super) fn note(&self, version: &Arc<PluginVersion>) {
        let mut versions = self.lock();
        if !versions.iter().any(|seen| Arc::ptr_eq(seen, version)) {
            versions.push(version.clone());
        }
    }

    /// The versions so far.
    pub fn versions(&self) -> Vec<Arc<PluginVersion>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<PluginVersion>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
