//! The plugins at one moment, in the order of the chain.

use std::sync::Arc;

use signalbox_config::PluginConfig;
use signalbox_protocol::event_type::Patterns;

use super::{
    gate::Gate,
    rollout::{Rollout, Shadow},
    version::PluginVersion,
};

/// The plugins at one moment, in the order of the chain. A message goes through one set from start to end.
#[derive(Debug, Default)]
pub struct PluginSet {
    slots: Vec<PluginSlot>,
    /// The gates of the versions with a single instance.
    gates: Vec<Arc<Gate>>,
    follows_membership: bool,
}

/// The place of one plugin in the chain.
#[derive(Clone, Debug)]
pub struct PluginSlot {
    config: Arc<PluginConfig>,
    sees: Patterns,
    version: Option<Arc<PluginVersion>>,
    /// A version that is being rolled out.
    rollout: Option<Arc<Rollout>>,
}

impl PluginSlot {
    /// The plugin of `config`, with its live version, and one that is being rolled out.
    pub fn new(
        config: Arc<PluginConfig>,
        version: Option<Arc<PluginVersion>>,
        rollout: Option<Arc<Rollout>>,
    ) -> Self {
        // Validated together with the configuration.
        let sees = Patterns::parse(&config.events).unwrap_or_default();
        Self {
            config,
            sees,
            version,
            rollout,
        }
    }

    /// The configured entry. The entry of the version may be older, if a newer version was refused.
    pub fn config(&self) -> &Arc<PluginConfig> {
        &self.config
    }

    /// Whether the plugin is configured for this event type.
    pub fn sees(&self, event_type: &str) -> bool {
        self.sees.matches(event_type)
    }

    /// The live version; `None` if no version was ever admitted.
    pub fn version(&self) -> Option<&Arc<PluginVersion>> {
        self.version.as_ref()
    }

    /// The version that serves `user`: the live one, or the one on trial for a share of the users. Within one set the
    /// result never changes.
    pub fn version_for(&self, user: &str) -> Option<&Arc<PluginVersion>> {
        let tried = self
            .rollout
            .as_ref()
            .and_then(|rollout| rollout.serves(user));
        tried.or(self.version.as_ref())
    }

    /// A version that runs alongside the live one on copies of its calls.
    pub fn shadow(&self) -> Option<&Shadow> {
        self.rollout.as_ref()?.shadow()
    }

    /// The rollout of a version on trial.
    pub fn rollout(&self) -> Option<&Arc<Rollout>> {
        self.rollout.as_ref()
    }
}

impl PluginSet {
    /// The plugins in the order of the chain.
    pub fn new(slots: Vec<PluginSlot>) -> Self {
        let gates = slots.iter().filter_map(|slot| slot.version()?.gate());
        let follows = |version: &Arc<PluginVersion>| version.follows_membership();
        let tried = |slot: &PluginSlot| Some(slot.rollout()?.candidate().follows_membership());
        let follows_membership = slots
            .iter()
            .any(|slot| slot.version().is_some_and(follows) || tried(slot).unwrap_or_default());
        Self {
            gates: gates.cloned().collect(),
            slots,
            follows_membership,
        }
    }

    /// Lets a message enter every version that has a gate.
    ///
    /// # Errors
    /// Returns the gate that is not open; the message has then entered none.
    pub fn enter(&self) -> Result<(), Arc<Gate>> {
        let Some(closed) = self.gates.iter().position(|gate| !gate.enter()) else {
            return Ok(());
        };
        self.gates[..closed].iter().for_each(|gate| gate.leave());
        Err(self.gates[closed].clone())
    }

    /// Counts out a message that was let in.
    pub fn leave(&self) {
        self.gates.iter().for_each(|gate| gate.leave());
    }

    /// Whether a version is called when connections join and leave rooms.
    pub fn follows_membership(&self) -> bool {
        self.follows_membership
    }

    /// The slots, in the order of the chain.
    pub fn slots(&self) -> &[PluginSlot] {
        &self.slots
    }

    /// The plugins that have no live version.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.slots
            .iter()
            .filter(|slot| slot.version.is_none())
            .map(|slot| slot.config.name.as_str())
    }

    /// The event types that plugins are configured for or handle, by name.
    pub fn named_types(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().flat_map(|slot| {
            let candidate = slot.rollout.as_ref().map(|rollout| rollout.candidate());
            let versions = slot.version.iter().chain(candidate);
            let handled = versions.map(|version| version.handled());
            [&slot.sees]
                .into_iter()
                .chain(handled)
                .flat_map(Patterns::exact)
        })
    }

    /// The live version of the plugin called `name`.
    pub fn live_version(&self, name: &str) -> Option<&Arc<PluginVersion>> {
        self.find(name)?.version()
    }

    /// The plugin called `name`.
    pub fn find(&self, name: &str) -> Option<&PluginSlot> {
        self.slots.iter().find(|slot| slot.config.name == name)
    }
}

/// The event types that a plugin of a planned set handles.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The types.
    pub handles: &'a Patterns,
    /// Whether the version is not live yet: only new versions can be refused.
    pub new: bool,
}

/// Two plugins that handle the same types.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The index of the plugin that is refused: the new one, or the later one in the chain if both are new.
    pub refused: usize,
    /// The index of the other plugin.
    pub other: usize,
    /// The pattern of both.
    pub pattern: String,
}

/// The first conflict among the plugins of a planned set, by their indexes; `None` if they can be live together.
pub fn conflict(claims: &[Option<Claim<'_>>]) -> Option<Conflict> {
    let claimed = || {
        claims
            .iter()
            .enumerate()
            .filter_map(|(place, claim)| Some((place, (*claim)?)))
    };
    for (later, b) in claimed() {
        for (earlier, a) in claimed().take_while(|(place, _)| *place < later) {
            let (refused, other) = match (a.new, b.new) {
                (_, true) => (later, earlier),
                (true, false) => (earlier, later),
                // Both have been live together before.
                (false, false) => continue,
            };
            if let Some(pattern) = a.handles.shared_with(b.handles) {
                return Some(Conflict {
                    refused,
                    other,
                    pattern,
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(claims: &[(&str, bool)]) -> Option<usize> {
        let patterns: Vec<_> = claims
            .iter()
            .map(|(pattern, _)| Patterns::parse(&[pattern]).unwrap())
            .collect();
        let claims: Vec<_> = patterns
            .iter()
            .zip(claims)
            .map(|(handles, (_, new))| Some(Claim { handles, new: *new }))
            .collect();
        conflict(&claims).map(|conflict| conflict.refused)
    }

    #[test]
    fn a_new_version_gives_way_to_a_live_one_wherever_that_stands_in_the_chain() {
        assert_eq!(refused(&[("a", false), ("a", true)]), Some(1));
        assert_eq!(refused(&[("a", true), ("a", false)]), Some(0));
    }

    #[test]
    fn of_two_new_versions_the_later_in_the_chain_gives_way() {
        assert_eq!(
            refused(&[("b", false), ("a.*", true), ("a.*", true)]),
            Some(2)
        );
    }

    #[test]
    fn different_patterns_do_not_conflict_and_nor_does_a_place_without_a_version() {
        assert_eq!(
            refused(&[("a.b", true), ("a.*", true), ("a.c", true)]),
            None
        );
        assert_eq!(conflict(&[None, None]), None);
    }
}
