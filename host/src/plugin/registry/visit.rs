//! The plugin set that a message holds from its first call to its last.

use std::{ops::Deref, sync::Arc};

use arc_swap::Guard;

use super::Registry;
use crate::plugin::{PluginSet, door::Door};

/// The set that a message goes through. While it is held, no plugin state is handed over under the message, so it is
/// dropped as soon as the plugins have answered.
pub struct Visit(Guard<Arc<PluginSet>>);

impl Deref for Visit {
    type Target = PluginSet;

    fn deref(&self) -> &PluginSet {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Registry {
    /// The current live set, for one message. Waits only while a state is handed over, for at most `handover_time_max`.
    #[expect(
        clippy::manual_async_fn,
        reason = "keeps what it is given once; an async function does twice"
    )]
    pub fn enter(&self) -> impl Future<Output = Visit> {
        async move {
            match self.try_to_enter() {
                Ok(visit) => visit,
                // On the heap, because otherwise every idle connection would reserve the space for it.
                Err(door) => Box::pin(self.wait_to_enter(door)).await,
            }
        }
    }

    fn try_to_enter(&self) -> Result<Visit, Arc<Door>> {
        let set = self.live.load();
        set.enter().map(|()| Visit(set))
    }

    async fn wait_to_enter(&self, mut door: Arc<Door>) -> Visit {
        loop {
            door.until_moved().await;
            match self.try_to_enter() {
                Ok(visit) => return visit,
                Err(other) => door = other,
            }
        }
    }
}
