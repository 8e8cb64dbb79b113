//! What all nodes read: which version of each plugin the cluster decided for, and which one is proposed.
//!
//! It is one hash, `signalbox:plugins` behind the configured prefix, with these fields for plugin `p`:
//!
//! - `decided:p`: the decision, and `number:p`, how many there have been;
//! - `proposed:p`: the proposal, `id:p` its ID, and `until:p` when it is over unless it is renewed, by Redis' clock.
//!
//! One key, so that one command reads all of it and each change is one atomic script, in a cluster of Redis too. What
//! nodes say to a proposal stands apart, in a hash `signalbox:swap:ID` with a field for each node, which Redis forgets
//! after [`ANSWERS_KEPT`]. Decisions and proposals are JSON that the scripts do not look into.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::warn;

use super::{answer::NodeAnswer, coordinator::LEASE, millis};
use crate::redis_client::{Commands, Script, Unavailable};

/// How long what nodes answered can be read.
const ANSWERS_KEPT: Duration = Duration::from_secs(600);

/// A component that is, or is to be, in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Component {
    /// In hex.
    pub(super) sha256: String,
    pub(super) bytes: usize,
}

/// A component that a node wants live on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) id: String,
    pub(super) component: Component,
    /// The node that proposes it.
    pub(super) by: String,
}

/// What the cluster runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decision {
    /// The ID of the proposal that it comes from.
    pub(super) id: String,
    /// None: every node what its file says.
    pub(super) component: Option<Component>,
    pub(super) by: String,
    /// RFC 3339.
    pub(super) at: String,
}

impl Decision {
    /// The version as logs name it.
    pub(super) fn version(&self) -> &str {
        let label = |component: &Component| component.sha256.len().min(12);
        match &self.component {
            Some(component) => &component.sha256[..label(component)],
            None => "what its file says",
        }
    }
}

/// What stands about one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The last decision and its number, from 1.
    pub(super) decided: Option<(u64, Decision)>,
    /// A proposal that is not over.
    pub(super) proposed: Option<Proposal>,
}

/// The hash in Redis.
pub(super) struct Board {
    commands: Commands,
    prefix: String,
    look: Script,
    propose: Script,
    renew: Script,
    withdraw: Script,
    decide: Script,
    settle: Script,
    retract: Script,
    restore: Script,
}

/// What came of a proposal, or of a decision that needs none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proposed<T> {
    Stands(T),
    /// Another one is under way, from this node.
    Busy(String),
}

/// What came of a decision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decided {
    /// It stands, with this number.
    Stands(u64),
    /// The proposal was over before, or is forgotten.
    Lost,
}

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(
            include_str!("board/common.lua"),
            include_str!(concat!("board/", $name, ".lua"))
        ))
    };
}

impl Board {
    pub(super) fn new(commands: Commands, prefix: &str) -> Self {
        Self {
            commands,
            prefix: prefix.to_owned(),
            look: script!("look"),
            propose: script!("propose"),
            renew: script!("renew"),
            withdraw: script!("withdraw"),
            decide: script!("decide"),
            settle: script!("settle"),
            retract: script!("retract"),
            restore: script!("restore"),
        }
    }

    /// All that stands on it, by plugin.
    pub(super) async fn look(&self) -> Result<BTreeMap<String, Entry>, Unavailable> {
        let (now, fields): (String, Vec<String>) = self
            .commands
            .run_script(&self.look, &[self.key()], &[b""])
            .await?;
        Ok(entries(now.parse().unwrap_or(0), &fields))
    }

    pub(super) async fn propose(
        &self,
        plugin: &str,
        proposal: &Proposal,
    ) -> Result<Proposed<()>, Unavailable> {
        let text = json(proposal);
        let args = [&*proposal.id, &*text, &lease()];
        let (status, other) = self.change(&self.propose, plugin, &args).await?;
        if status == "busy" {
            return Ok(Proposed::Busy(proposer(&other)));
        }
        Ok(Proposed::Stands(()))
    }

    /// Decides without a proposal, and returns the number of the decision.
    pub(super) async fn settle(
        &self,
        plugin: &str,
        decision: &Decision,
    ) -> Result<Proposed<u64>, Unavailable> {
        let text = json(decision);
        let (status, said) = self.change(&self.settle, plugin, &[&text]).await?;
        if status == "busy" {
            return Ok(Proposed::Busy(proposer(&said)));
        }
        Ok(Proposed::Stands(said.parse().unwrap_or(0)))
    }

    /// Whether the proposal still stands, now for [`LEASE`].
    pub(super) async fn renew(&self, plugin: &str, id: &str) -> Result<bool, Unavailable> {
        let (status, _) = self.change(&self.renew, plugin, &[id, &lease()]).await?;
        Ok(status == "ok")
    }

    /// Takes a proposal away, if it is there.
    pub(super) async fn withdraw(&self, plugin: &str, id: &str) -> Result<(), Unavailable> {
        self.change(&self.withdraw, plugin, &[id]).await.map(drop)
    }

    /// Decides for what was proposed as `decision.id`.
    pub(super) async fn decide(
        &self,
        plugin: &str,
        decision: &Decision,
    ) -> Result<Decided, Unavailable> {
        let args = [&*decision.id, &*json(decision)];
        let (status, number) = self.change(&self.decide, plugin, &args).await?;
        match (status.as_str(), number.parse()) {
            ("ok", Ok(number)) => Ok(Decided::Stands(number)),
            _ => Ok(Decided::Lost),
        }
    }

    /// Puts `decision` into the place of the one with `number`, as its successor. Whether that was still the last one.
    pub(super) async fn retract(
        &self,
        plugin: &str,
        number: u64,
        decision: &Decision,
    ) -> Result<bool, Unavailable> {
        let args = [&*number.to_string(), &*json(decision)];
        let (status, _) = self.change(&self.retract, plugin, &args).await?;
        Ok(status == "ok")
    }

    /// Writes a decision down anew that Redis has forgotten; a later one stays.
    pub(super) async fn restore(
        &self,
        plugin: &str,
        number: u64,
        decision: &Decision,
    ) -> Result<(), Unavailable> {
        let args = [&*number.to_string(), &*json(decision)];
        self.change(&self.restore, plugin, &args).await.map(drop)
    }

    /// Writes down what `node` says to proposal `id`, in the place of what it said before.
    pub(super) async fn answer(
        &self,
        id: &str,
        node: &str,
        answer: &NodeAnswer,
    ) -> Result<(), Unavailable> {
        let key = self.answers_key(id);
        let mut set = redis::cmd("HSET");
        set.arg(&key).arg(node).arg(json(answer));
        self.commands.run::<()>(&set).await?;
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(&key).arg(millis(ANSWERS_KEPT));
        self.commands.run::<()>(&expire).await
    }

    /// What nodes said to proposal `id` so far.
    pub(super) async fn answers(
        &self,
        id: &str,
    ) -> Result<BTreeMap<String, NodeAnswer>, Unavailable> {
        let mut all = redis::cmd("HGETALL");
        all.arg(self.answers_key(id));
        let answers: BTreeMap<String, String> = self.commands.run(&all).await?;
        let answers = answers.into_iter();
        Ok(answers
            .filter_map(|(node, text)| {
                let answer = read(&node, &text)?;
                Some((node, answer))
            })
            .collect())
    }

    async fn change(
        &self,
        script: &Script,
        plugin: &str,
        args: &[&str],
    ) -> Result<(String, String), Unavailable> {
        let args: Vec<&[u8]> = std::iter::once(plugin)
            .chain(args.iter().copied())
            .map(str::as_bytes)
            .collect();
        self.commands.run_script(script, &[self.key()], &args).await
    }

    fn key(&self) -> String {
        format!("{}signalbox:plugins", self.prefix)
    }

    fn answers_key(&self, id: &str) -> String {
        format!("{}signalbox:swap:{id}", self.prefix)
    }
}

/// Whose proposal it is, as far as that can be read.
fn proposer(proposal: &str) -> String {
    let proposal = serde_json::from_str(proposal).map(|proposal: Proposal| proposal.by);
    proposal.unwrap_or_default()
}

fn entries(now: u64, fields: &[String]) -> BTreeMap<String, Entry> {
    let fields: BTreeMap<&str, &str> = fields
        .chunks_exact(2)
        .map(|pair| (&*pair[0], &*pair[1]))
        .collect();
    let number = |what: &str, plugin: &str| -> u64 {
        let text = fields.get(&*format!("{what}:{plugin}"));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let mut entries = BTreeMap::<String, Entry>::new();
    for (&field, &text) in &fields {
        if let Some(plugin) = field.strip_prefix("decided:") {
            entries.entry(plugin.to_owned()).or_default().decided =
                read(field, text).map(|decision| (number("number", plugin), decision));
        } else if let Some(plugin) = field.strip_prefix("proposed:") {
            let open = number("until", plugin) > now;
            entries.entry(plugin.to_owned()).or_default().proposed =
                open.then(|| read(field, text)).flatten();
        }
    }
    entries
}

/// What another node wrote; none where that cannot be understood.
fn read<T: DeserializeOwned>(field: &str, text: &str) -> Option<T> {
    serde_json::from_str(text)
        .inspect_err(
            |error| warn!(field, %error, "what stands in Redis about plugins is not understood"),
        )
        .ok()
}

fn json(value: &impl Serialize) -> String {
    // Strings, numbers and options of them under string keys always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

fn lease() -> String {
    millis(LEASE).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<String> {
        let texts = pairs.iter().flat_map(|(field, text)| [*field, *text]);
        texts.map(str::to_owned).collect()
    }

    #[test]
    fn what_stands_is_read_and_what_is_over_or_garbled_is_not() {
        let component = Component {
            sha256: "ab".to_owned(),
            bytes: 1,
        };
        let proposal = Proposal {
            id: "n-1".to_owned(),
            component: component.clone(),
            by: "n".to_owned(),
        };
        let decision = Decision {
            id: "n-0".to_owned(),
            component: Some(component),
            by: "n".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
        };
        let (proposed, decided) = (json(&proposal), json(&decision));
        let all = fields(&[
            ("proposed:a:b", &proposed),
            ("id:a:b", "n-1"),
            ("until:a:b", "11"),
            ("decided:a:b", &decided),
            ("number:a:b", "7"),
            ("proposed:late", &proposed),
            ("until:late", "10"),
            ("decided:garbled", "{"),
        ]);
        let entries = entries(10, &all);
        let open = Entry {
            decided: Some((7, decision)),
            proposed: Some(proposal),
        };
        assert_eq!(entries["a:b"], open);
        assert_eq!(entries["late"], Entry::default());
        assert_eq!(entries["garbled"], Entry::default());
    }
}
