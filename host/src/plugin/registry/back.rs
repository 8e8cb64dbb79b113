//! Going back to a version that was live before.

use std::{sync::Arc, time::Instant};

use super::{
    Change, ChangeError, Registry,
    attempt::{NotAdmitted, Tried},
    operations::tried,
    record::Stint,
    reload::Place,
};
use crate::{
    config::PluginConfig,
    plugin::{ComponentHash, LoadError, PluginVersion, hex},
};

/// Fewest digits of a sha256 that name a version, as logs and reports do.
const DIGITS_MIN: usize = 12;

/// A version to go back to.
pub(super) enum Back {
    /// It was live in this process.
    Resting(Arc<PluginVersion>),
    /// It was live in an earlier one.
    Kept(ComponentHash),
}

impl Back {
    /// Its component.
    pub(super) fn hash(&self) -> &ComponentHash {
        match self {
            Self::Resting(version) => version.hash(),
            Self::Kept(hash) => hash,
        }
    }
}

impl Registry {
    /// Readies a version that was live before.
    pub(super) async fn go_back(
        &self,
        config: &Arc<PluginConfig>,
        back: Back,
        bytes_max: usize,
    ) -> Result<Tried, NotAdmitted> {
        match back {
            Back::Resting(earlier) => {
                // It was admitted before, and starts here as then.
                let version = Arc::new(earlier.anew());
                let warmed = version.warm_up().await;
                let warmed = warmed.map_err(|error| LoadError::Start(error.detail));
                tried(warmed.map(|()| version), *earlier.hash(), None)
            }
            Back::Kept(hash) => {
                let pace = self.pace(&config.name);
                let loaded = self.load_kept(config, &hash, bytes_max, pace).await;
                tried(loaded, hash, None)
            }
        }
    }

    /// The version to go back to; none where that is the one that is live.
    pub(super) fn earlier(
        &self,
        plugin: &str,
        to: Option<String>,
        current: Option<&Arc<PluginVersion>>,
    ) -> Result<Option<Back>, ChangeError> {
        let Some(to) = to else {
            let earlier = self
                .records
                .with(plugin, |record| record.good().next().map(back));
            return earlier.map(Some).ok_or(ChangeError::NoEarlierVersion);
        };
        let sha256 = to.to_ascii_lowercase();
        if sha256.len() < DIGITS_MIN {
            return Err(ChangeError::NoSuchVersion(to));
        }
        if current.is_some_and(|live| hex(live.hash()).starts_with(&sha256)) {
            return Ok(None);
        }
        let earlier = self
            .records
            .with(plugin, |record| record.earlier(&sha256).map(back));
        earlier.map(Some).ok_or(ChangeError::NoSuchVersion(to))
    }

    /// Takes back the version that is tried beside the live one, if one is.
    pub(super) fn end_trial(&self, place: &Place, began: Instant) -> Option<Change> {
        let (rollout, live) = (place.rollout.as_ref()?, place.current.as_ref()?);
        self.withdraw(&place.config.name, rollout, "an operator took it back");
        Some(Change::Live {
            version: live.clone(),
            replaced: Some(rollout.candidate().label().to_owned()),
            took: began.elapsed(),
        })
    }
}

pub(super) fn back(stint: &Stint) -> Back {
    match &stint.resting {
        Some(version) => Back::Resting(version.clone()),
        None => Back::Kept(stint.hash.0),
    }
}
