//! Starts a plugin that has no live version yet, but had one in an earlier process.
//!
//! If the file has not changed since it was last examined, the version that was live goes live again. A changed file is
//! tried as always. If a file cannot be loaded, the version that was live takes its place; if that fails too, the
//! versions before it do.

use std::sync::Arc;

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{CompilePriority, LoadError, PluginVersion, Sha256};
use tracing::warn;

use super::{
    LoadFailure, LoadOutcome, PluginManager,
    load::{FileContent, LoadedVersion},
    plugin_history::PersistedHistory,
    trigger::Origin,
};

impl PluginManager {
    /// Loads the version that goes live first, for a plugin of which `recalled` was live.
    pub(super) async fn resume(
        &self,
        config: &Arc<PluginConfig>,
        found: FileContent,
        recalled: &PersistedHistory,
        bytes_max: usize,
    ) -> Result<LoadOutcome, LoadFailure> {
        let hash = found.attempted.content.as_ref().ok().copied();
        let unchanged = recalled.file == hash;
        let barred = hash.is_some_and(|hash| self.is_barred(config, &hash));
        let is_live = hash == Some(recalled.live);
        let mut failure = None;
        // If a rollout is configured, a changed file is tried alongside the version that was live, once that is live
        // again.
        let later = config.rollout.is_some() && !unchanged;
        let wanted = is_live || !(unchanged || barred || later);
        match &found.bytes {
            Ok(bytes) if wanted => match self.load_first(config, bytes.clone()).await {
                Ok(version) => {
                    return Ok(LoadOutcome::New(LoadedVersion::of_file(
                        version,
                        bytes.clone(),
                    )));
                }
                Err(error) => failure = Some(LoadFailure { hash, error }),
            },
            Ok(_) => {}
            Err(error) => {
                let error = error.clone();
                failure = Some(LoadFailure { hash, error });
            }
        }
        let origin = if unchanged && recalled.held || barred {
            Origin::Operator
        } else {
            Origin::File
        };
        for kept in recalled.versions() {
            if hash == Some(*kept) && wanted {
                continue;
            }
            match self
                .load_kept(config, kept, bytes_max, CompilePriority::Full)
                .await
            {
                Ok(version) => {
                    self.histories.with(&config.name, |history| {
                        if later {
                            // Recorded as if the file had not been examined, until it is tried.
                            history.file = recalled.file.map(Ok);
                        } else if origin == Origin::File {
                            // The file is not tried again until it changes or somebody requests it.
                            history.refused = Some(found.attempted);
                        }
                    });
                    return Ok(LoadOutcome::New(LoadedVersion {
                        version,
                        origin,
                        component: None,
                        insisted: false,
                        watched: true,
                        instead_of: failure,
                    }));
                }
                Err(error) => {
                    warn!(
                        plugin = config.name,
                        version = kept.label(),
                        "a version that was live before does not start again: {error}"
                    );
                    let hash = Some(*kept);
                    failure.get_or_insert(LoadFailure { hash, error });
                }
            }
        }
        match (found.bytes, failure) {
            // Nothing else is left.
            (Ok(bytes), _) if !wanted && !barred => {
                let loaded = self.load_first(config, bytes.clone()).await;
                loaded
                    .map(|version| LoadOutcome::New(LoadedVersion::of_file(version, bytes)))
                    .map_err(|error| self.refused(config, found.attempted, hash, error))
            }
            (_, Some(LoadFailure { hash, error })) => {
                Err(self.refused(config, found.attempted, hash, error))
            }
            (_, None) => unreachable!("something was tried, and all of it failed"),
        }
    }

    async fn load_first(
        &self,
        config: &Arc<PluginConfig>,
        bytes: Arc<[u8]>,
    ) -> Result<Arc<PluginVersion>, LoadError> {
        self.loader.load(config, bytes, CompilePriority::Full).await
    }

    /// Admits a version that is kept on disk, with the current configuration.
    pub(super) async fn load_kept(
        &self,
        config: &Arc<PluginConfig>,
        hash: &Sha256,
        bytes_max: usize,
        pace: CompilePriority,
    ) -> Result<Arc<PluginVersion>, LoadError> {
        let Some(versions) = &self.versions else {
            let reason = "no versions are kept on disk".to_owned();
            let path = config.path.clone();
            return Err(LoadError::Read { path, reason });
        };
        let bytes = versions.component(&config.name, hash, bytes_max).await?;
        self.loader.load(config, bytes, pace).await
    }
}
