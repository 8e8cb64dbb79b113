//! `state.json`: carries the state of one plugin's versions from one process to the next.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use signalbox_plugin_runtime::{ComponentHash, hex, rfc3339};

use crate::Trigger;

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
    pub(crate) file: Option<Digest>,
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
    pub(crate) sha256: Digest,
    /// A hash of its configuration, because the configuration itself may hold secrets.
    pub(crate) config: Digest,
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
    pub(crate) sha256: Digest,
    /// The hash of its configuration, if that was the only change; `None` if the version is barred with any
    /// configuration.
    pub(crate) config: Option<Digest>,
    /// Why it was rolled back.
    pub(crate) reason: String,
    /// When it was rolled back.
    #[serde(with = "rfc3339")]
    pub(crate) at: SystemTime,
}

impl PersistedState {
    /// A state with this live version and no earlier ones.
    pub(crate) fn new(live: KeptVersion, file: Option<ComponentHash>, held: bool) -> Self {
        Self {
            format: FORMAT,
            live,
            file: file.map(Digest),
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
    pub(super) fn components(&self) -> impl Iterator<Item = &ComponentHash> {
        let earlier = self.earlier.iter().map(|earlier| &earlier.version);
        [&self.live]
            .into_iter()
            .chain(earlier)
            .map(|kept| &kept.sha256.0)
    }
}

impl RolledBackVersion {
    /// Puts `self` first in the list, and removes an older entry for the same component and configuration.
    pub(crate) fn remember_in(self, list: &mut Vec<Self>) {
        list.retain(|other| (other.sha256, other.config) != (self.sha256, self.config));
        list.insert(0, self);
        list.truncate(ROLLED_BACK_MAX);
    }

    /// Whether it is about the component `hash` with the configuration whose hash is `config`.
    pub(crate) fn is_about(&self, hash: &ComponentHash, config: &Digest) -> bool {
        self.sha256.0 == *hash && self.config.is_none_or(|own| own == *config)
    }
}

/// A sha256, serialized as hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest(pub(crate) ComponentHash);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("a sha256 has 64 hex digits"))
    }
}

fn parse_hex(text: &str) -> Option<ComponentHash> {
    let mut hash = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn kept(number: u8) -> KeptVersion {
        KeptVersion {
            sha256: Digest(signalbox_plugin_runtime::component_hash(&[number])),
            config: Digest([7; 32]),
            semver: Some("1.2.3".to_owned()),
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            trigger: Trigger::Push,
        }
    }

    pub(crate) fn state(live: u8, earlier: &[u8]) -> PersistedState {
        let mut state = PersistedState::new(kept(live), Some([9; 32]), true);
        let earlier = earlier.iter().map(|number| EarlierVersion {
            version: kept(*number),
            until: SystemTime::UNIX_EPOCH,
            rolled_back: false,
        });
        state.earlier = earlier.collect();
        state
    }

    #[test]
    fn what_was_written_is_read_and_what_is_torn_or_of_another_layout_is_not() {
        let mut state = state(1, &[2]);
        state.rolled_back.push(RolledBackVersion {
            sha256: Digest([3; 32]),
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
    fn the_list_of_those_taken_back_is_bounded_and_names_each_once() {
        let mut list = Vec::new();
        let taken_back = |number: u8, config: Option<u8>| RolledBackVersion {
            sha256: Digest([number; 32]),
            config: config.map(|config| Digest([config; 32])),
            reason: String::new(),
            at: SystemTime::UNIX_EPOCH,
        };
        for number in (0..30).chain([29]) {
            taken_back(number, None).remember_in(&mut list);
        }
        assert_eq!(list.len(), ROLLED_BACK_MAX);
        assert!(list[0].is_about(&[29; 32], &Digest([0; 32])));
        assert!(!list[0].is_about(&[28; 32], &Digest([0; 32])));
        let with_config = taken_back(1, Some(5));
        assert!(with_config.is_about(&[1; 32], &Digest([5; 32])));
        assert!(!with_config.is_about(&[1; 32], &Digest([6; 32])));
    }

    #[test]
    fn a_hash_that_is_misspelled_is_none() {
        for bad in ["", "0", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
        assert_eq!(parse_hex(&"0f".repeat(32)), Some([15; 32]));
    }
}
