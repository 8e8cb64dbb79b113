//! `state.json`: carries the state of one plugin's versions from one process to the next.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use signalbox_plugin_runtime::{Sha256, rfc3339};

use crate::{Trigger, plugin_history::VersionId};

/// The version of the layout. A state with another layout is ignored.
pub(super) const FORMAT: u32 = 1;

/// The maximum number of rolled-back versions that are remembered; the oldest are forgotten first.
const ROLLED_BACK_MAX: usize = 20;

/// The state of the versions of one plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PersistedState {
    format: u32,
    /// The version that is live.
    pub(crate) live: KeptVersion,
    /// The hash of the configured file when it was last examined; `None` if it could not be read.
    pub(crate) file: Option<Sha256>,
    /// Whether an operator or the probation made a version live that is not the one in the file.
    pub(crate) held: bool,
    /// The versions that were live before, the latest first.
    pub(crate) earlier: Vec<EarlierVersion>,
    /// The versions that must not go live automatically again, the latest first.
    pub(crate) rolled_back: Vec<RolledBackVersion>,
}

/// A version whose component is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptVersion {
    /// The hash of the component.
    pub(crate) sha256: Sha256,
    /// A hash of its configuration, because the configuration itself may hold secrets.
    pub(crate) config: Sha256,
    /// The version that the component declares.
    pub(crate) semver: Option<String>,
    /// When it went live.
    #[serde(with = "rfc3339")]
    pub(crate) since: SystemTime,
    /// The trigger of that swap.
    pub(crate) trigger: Trigger,
}

/// A version that was live before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EarlierVersion {
    #[serde(flatten)]
    pub(crate) version: KeptVersion,
    /// When it stopped being live.
    #[serde(with = "rfc3339")]
    pub(crate) until: SystemTime,
    /// Whether it was rolled back, rather than replaced by a newer version.
    pub(crate) rolled_back: bool,
}

/// A version that was rolled back automatically. It does not go live again until its bytes change or somebody insists
/// on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RolledBackVersion {
    /// The hash of the component.
    pub(crate) sha256: Sha256,
    /// The hash of its configuration, if that was the only change; `None` if the version is barred with any
    /// configuration.
    pub(crate) config: Option<Sha256>,
    /// Why it was rolled back.
    pub(crate) reason: String,
    /// When it was rolled back.
    #[serde(with = "rfc3339")]
    pub(crate) at: SystemTime,
}

impl PersistedState {
    /// A state with this live version and no earlier ones.
    pub(crate) fn new(live: KeptVersion, file: Option<Sha256>, held: bool) -> Self {
        Self {
            format: FORMAT,
            live,
            file,
            held,
            earlier: Vec::new(),
            rolled_back: Vec::new(),
        }
    }

    /// Parses the output of [`PersistedState::to_json`].
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if state.format != FORMAT {
            let format = state.format;
            return Err(format!(
                "it has format {format}, this server knows {FORMAT}"
            ));
        }
        Ok(state)
    }

    /// The content of the file.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // A state has only texts, numbers and lists, so this cannot fail.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// The components that it names.
    pub(super) fn components(&self) -> impl Iterator<Item = &Sha256> {
        let earlier = self.earlier.iter().map(|earlier| &earlier.version);
        [&self.live]
            .into_iter()
            .chain(earlier)
            .map(|kept| &kept.sha256)
    }
}

impl RolledBackVersion {
    /// Puts `self` first in the list, and removes an older entry for the same component and configuration.
    pub(crate) fn remember_in(self, list: &mut Vec<Self>) {
        list.retain(|other| (other.sha256, other.config) != (self.sha256, self.config));
        list.insert(0, self);
        list.truncate(ROLLED_BACK_MAX);
    }

    pub(crate) fn is_about(&self, id: &VersionId) -> bool {
        self.sha256 == id.hash && self.config.is_none_or(|own| own == id.config)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn kept(number: u8) -> KeptVersion {
        KeptVersion {
            sha256: Sha256::of(&[number]),
            config: Sha256::from([7; 32]),
            semver: Some("1.2.3".to_owned()),
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            trigger: Trigger::Push,
        }
    }

    pub(crate) fn state(live: u8, earlier: &[u8]) -> PersistedState {
        let mut state = PersistedState::new(kept(live), Some(Sha256::from([9; 32])), true);
        let earlier = earlier.iter().map(|number| EarlierVersion {
            version: kept(*number),
            until: SystemTime::UNIX_EPOCH,
            rolled_back: false,
        });
        state.earlier = earlier.collect();
        state
    }

    #[test]
    fn a_written_record_is_read_and_a_torn_or_foreign_one_is_not() {
        let mut state = state(1, &[2]);
        state.rolled_back.push(RolledBackVersion {
            sha256: Sha256::from([3; 32]),
            config: None,
            reason: "it trapped".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        });
        let json = state.to_json();
        assert_eq!(PersistedState::from_json(&json), Ok(state.clone()));
        for end in 0..json.len() - 1 {
            assert!(PersistedState::from_json(&json[..end]).is_err(), "{end}");
        }
        state.format = 2;
        let error = PersistedState::from_json(&state.to_json()).unwrap_err();
        assert!(error.contains("format 2"), "{error}");
    }

    #[test]
    fn the_list_of_rolled_back_versions_is_bounded_and_names_each_once() {
        let mut list = Vec::new();
        let rolled_back_version = |number: u8, config: Option<u8>| RolledBackVersion {
            sha256: Sha256::from([number; 32]),
            config: config.map(|config| Sha256::from([config; 32])),
            reason: String::new(),
            at: SystemTime::UNIX_EPOCH,
        };
        for number in (0..30).chain([29]) {
            rolled_back_version(number, None).remember_in(&mut list);
        }
        assert_eq!(list.len(), ROLLED_BACK_MAX);
        let id = |hash: u8, config: u8| VersionId {
            hash: [hash; 32].into(),
            config: [config; 32].into(),
        };
        assert!(list[0].is_about(&id(29, 0)));
        assert!(!list[0].is_about(&id(28, 0)));
        let with_config = rolled_back_version(1, Some(5));
        assert!(with_config.is_about(&id(1, 5)));
        assert!(!with_config.is_about(&id(1, 6)));
    }
}
