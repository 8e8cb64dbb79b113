//! The plugin set that a message holds from its first call to its last.

use std::{ops::Deref, sync::Arc};

use arc_swap::Guard;
use signalbox_plugin_runtime::{Gate, PluginSet};

use super::PluginManager;

/// The set that a message goes through. While it is held, no plugin state is handed over under the message, so it is
/// dropped as soon as the plugins have answered.
pub struct PluginSnapshot(Guard<Arc<PluginSet>>);

impl Deref for PluginSnapshot {
    type Target = PluginSet;

    fn deref(&self) -> &PluginSet {
        &self.0
    }
}

impl Drop for PluginSnapshot {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl PluginManager {
    /// The current live set, for one message. Waits only while a state is handed over, for at most `handover_time_max`.
    #[expect(
        clippy::manual_async_fn,
        reason = "keeps what it is given once; an async function does twice"
    )]
    pub fn enter(&self) -> impl Future<Output = PluginSnapshot> {
        async move {
            match self.try_to_enter() {
                Ok(snapshot) => snapshot,
                // On the heap, because otherwise every idle connection would reserve the space for it.
                Err(gate) => Box::pin(self.wait_to_enter(gate)).await,
            }
        }
    }

    fn try_to_enter(&self) -> Result<PluginSnapshot, Arc<Gate>> {
        let set = self.published.load();
        set.enter().map(|()| PluginSnapshot(set))
    }

    async fn wait_to_enter(&self, mut gate: Arc<Gate>) -> PluginSnapshot {
        loop {
            gate.until_moved().await;
            match self.try_to_enter() {
                Ok(snapshot) => return snapshot,
                Err(other) => gate = other,
            }
        }
    }
}
