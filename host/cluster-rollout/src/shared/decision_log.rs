//! The decision log that all nodes read: the version of each plugin that the cluster decided on, and the one that is proposed.
//!
//! It is one Redis hash, named by the configured prefix followed by `signalbox:plugins`, with these fields for plugin
//! `p`:
//!
//! - `decided:p`: the decision;
//! - `proposed:p`: the proposal, `id:p` its ID, and `until:p` when it expires unless it is renewed, by Redis' clock.
//!
//! There is only one key, so that one command reads everything and each change is one atomic script, in a Redis cluster
//! too. The nodes' answers to a proposal are separate, in a hash `signalbox:swap:ID` with a field for each node, which
//! Redis removes after [`ANSWERS_KEPT`]. All of these texts are [sealed](super::seal) and bounded. The scripts do not
//! interpret them, and replace a decision only if it is the one that the node has seen. Any other content is neither
//! trusted nor fatal.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use signalbox_redis_client::{Commands, Script, Unavailable};

use super::{
    log_text::{self, LogText},
    millis,
    seal::{OpenedText, SealedKind, Seals},
    texts::{Decision, Proposal},
    votes::Vote,
};
use crate::NodeAnswer;

/// The time without a renewal after which a proposal expires: the node that made it is gone, or cannot reach Redis.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How long the nodes' answers can be read.
const ANSWERS_KEPT: Duration = Duration::from_secs(600);

/// The decision log's entry for one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PluginEntry {
    pub(super) decided: LogText<Decision>,
    /// The decision's raw text, which a change must replace.
    pub(super) text: Arc<[u8]>,
    /// A proposal that has not expired.
    pub(super) proposed: LogText<Proposal>,
}

/// The hash in Redis.
pub(super) struct DecisionLog {
    commands: Commands,
    prefix: String,
    seals: Arc<Seals>,
    look: Script,
    propose: Script,
    renew: Script,
    withdraw: Script,
    decide: Script,
    settle: Script,
    replace: Script,
    answers: Script,
}

/// The outcome of a proposal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProposeOutcome {
    Stands,
    /// Another proposal is under way, from the node with this name.
    Busy(String),
}

/// The outcome of a decision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecideOutcome {
    Stands,
    /// Another decision was made in the meantime.
    Changed,
    /// The proposal had expired, or Redis has lost it.
    Lost,
    /// A proposal is under way, from the node with this name.
    Busy(String),
}

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(
            include_str!("decision_log/common.lua"),
            include_str!(concat!("decision_log/", $name, ".lua"))
        ))
    };
}

impl DecisionLog {
    pub(super) fn new(commands: Commands, prefix: &str, seals: Arc<Seals>) -> Self {
        Self {
            commands,
            prefix: prefix.to_owned(),
            seals,
            look: script!("look"),
            propose: script!("propose"),
            renew: script!("renew"),
            withdraw: script!("withdraw"),
            decide: script!("decide"),
            settle: script!("settle"),
            replace: script!("replace"),
            answers: Script::new(include_str!("decision_log/answers.lua")),
        }
    }

    /// Reads the entries of `plugins`.
    pub(super) async fn read_entries(
        &self,
        plugins: &[String],
    ) -> Result<BTreeMap<String, PluginEntry>, Unavailable> {
        let names: Vec<_> = plugins.iter().map(|name| name.as_bytes()).collect();
        let keys = [self.key()];
        let texts = self.commands.run_script(&self.look, &keys, &names);
        let texts: Vec<Vec<u8>> = texts.await?;
        let pairs = plugins.iter().zip(texts.chunks_exact(2));
        let entry = |(plugin, pair): (&String, &[Vec<u8>])| {
            let entry = PluginEntry {
                decided: self.read(SealedKind::Decision, plugin, &pair[0]),
                text: pair[0].as_slice().into(),
                proposed: self.read(SealedKind::Proposal, plugin, &pair[1]),
            };
            (plugin.clone(), entry)
        };
        Ok(pairs.map(entry).collect())
    }

    /// Reads the entries of one plugin.
    pub(super) async fn look_at(&self, plugin: &str) -> Result<PluginEntry, Unavailable> {
        let mut entries = self.read_entries(&[plugin.to_owned()]).await?;
        let entry = entries.remove(plugin);
        entry.ok_or_else(|| Unavailable::new("Redis returned an unexpected answer"))
    }

    pub(super) async fn propose(
        &self,
        plugin: &str,
        proposal: &Proposal,
    ) -> Result<ProposeOutcome, Unavailable> {
        let text = self
            .seals
            .seal(SealedKind::Proposal, &[plugin], &json(proposal));
        let args = [proposal.id.as_bytes(), text.as_bytes(), &lease()];
        let (status, other) = self.change(&self.propose, plugin, &args).await?;
        if status == "busy" {
            return Ok(ProposeOutcome::Busy(self.proposer(plugin, &other)));
        }
        Ok(ProposeOutcome::Stands)
    }

    /// Renews the proposal for [`LEASE`]. Returns whether it still stands.
    pub(super) async fn renew(&self, plugin: &str, id: &str) -> Result<bool, Unavailable> {
        let args = [id.as_bytes(), &lease()];
        let (status, _) = self.change(&self.renew, plugin, &args).await?;
        Ok(status == "ok")
    }

    /// Withdraws a proposal, if it is there.
    pub(super) async fn withdraw(&self, plugin: &str, id: &str) -> Result<(), Unavailable> {
        let args = [id.as_bytes()];
        self.change(&self.withdraw, plugin, &args).await.map(drop)
    }

    /// Decides for the proposal `decision.id`, if `before` is still the last decision.
    pub(super) async fn decide(
        &self,
        plugin: &str,
        before: &[u8],
        decision: &Decision,
    ) -> Result<DecideOutcome, Unavailable> {
        let text = self.sealed(plugin, decision);
        let args = [decision.id.as_bytes(), before, text.as_bytes()];
        self.decided(&self.decide, plugin, &args).await
    }

    /// Decides without a proposal, if `before` is still the last decision.
    pub(super) async fn settle(
        &self,
        plugin: &str,
        before: &[u8],
        decision: &Decision,
    ) -> Result<DecideOutcome, Unavailable> {
        self.write_over(&self.settle, plugin, before, decision)
            .await
    }

    /// Replaces the text `before` with `decision`, if it is still there. Returns whether it was.
    pub(super) async fn replace(
        &self,
        plugin: &str,
        before: &[u8],
        decision: &Decision,
    ) -> Result<bool, Unavailable> {
        let decided = self.write_over(&self.replace, plugin, before, decision);
        Ok(decided.await? == DecideOutcome::Stands)
    }

    /// Runs a script that writes `decision`, if the text `before` is still there.
    async fn write_over(
        &self,
        script: &Script,
        plugin: &str,
        before: &[u8],
        decision: &Decision,
    ) -> Result<DecideOutcome, Unavailable> {
        let text = self.sealed(plugin, decision);
        let args = [before, text.as_bytes()];
        self.decided(script, plugin, &args).await
    }

    /// Writes the answer of `node` to proposal `id`, and replaces its previous answer.
    pub(super) async fn answer(
        &self,
        id: &str,
        node: &str,
        vote: &Vote,
    ) -> Result<(), Unavailable> {
        let key = self.answers_key(id);
        let text = self
            .seals
            .seal(SealedKind::Answer, &[id, node], &json(vote));
        let mut set = redis::cmd("HSET");
        set.arg(&key).arg(node).arg(text);
        self.commands.run::<()>(&set).await?;
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(&key).arg(millis(ANSWERS_KEPT));
        self.commands.run::<()>(&expire).await
    }

    /// The answers of `nodes` to proposal `id` so far. An answer that is not sealed with this node's key does not count
    /// as consent.
    pub(super) async fn answers(
        &self,
        id: &str,
        nodes: impl Iterator<Item = &String>,
    ) -> Result<BTreeMap<String, Vote>, Unavailable> {
        let nodes: Vec<_> = nodes.collect();
        let names: Vec<_> = nodes.iter().map(|node| node.as_bytes()).collect();
        let keys = [self.answers_key(id)];
        let texts = self.commands.run_script(&self.answers, &keys, &names);
        let texts: Vec<Vec<u8>> = texts.await?;
        let said = nodes.into_iter().zip(texts);
        let said = said.filter(|(_, text)| !text.is_empty());
        Ok(said
            .map(|(node, text)| (node.clone(), self.vote(id, node, &text)))
            .collect())
    }

    fn vote(&self, id: &str, node: &str, text: &[u8]) -> Vote {
        let text = std::str::from_utf8(text).ok();
        let opened = text.and_then(|text| self.seals.open(SealedKind::Answer, &[id, node], text));
        let vote = match opened {
            Some(OpenedText::Ours(body)) => serde_json::from_str(body).ok(),
            _ => None,
        };
        vote.unwrap_or_else(|| {
            let reason = "its answer is not signed with the admin.key of the node that was asked; set the same key on all nodes";
            NodeAnswer::failed(reason).into()
        })
    }

    async fn decided(
        &self,
        script: &Script,
        plugin: &str,
        args: &[&[u8]],
    ) -> Result<DecideOutcome, Unavailable> {
        let (status, said) = self.change(script, plugin, args).await?;
        Ok(match status.as_str() {
            "ok" => DecideOutcome::Stands,
            "changed" => DecideOutcome::Changed,
            "busy" => DecideOutcome::Busy(self.proposer(plugin, &said)),
            _ => DecideOutcome::Lost,
        })
    }

    async fn change(
        &self,
        script: &Script,
        plugin: &str,
        args: &[&[u8]],
    ) -> Result<(String, Vec<u8>), Unavailable> {
        let args: Vec<&[u8]> = [plugin.as_bytes()]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.commands.run_script(script, &[self.key()], &args).await
    }

    /// The node that made the proposal, if that can be read.
    fn proposer(&self, plugin: &str, text: &[u8]) -> String {
        let found: LogText<Proposal> = self.read(SealedKind::Proposal, plugin, text);
        let proposal = found.ours();
        proposal.map_or_else(
            || "of another key".to_owned(),
            |proposal| proposal.by.clone(),
        )
    }

    fn sealed(&self, plugin: &str, decision: &Decision) -> String {
        self.seals
            .seal(SealedKind::Decision, &[plugin], &json(decision))
    }

    fn read<T: DeserializeOwned>(&self, kind: SealedKind, plugin: &str, text: &[u8]) -> LogText<T> {
        log_text::read(&self.seals, kind, plugin, text)
    }

    fn key(&self) -> String {
        format!("{}signalbox:plugins", self.prefix)
    }

    fn answers_key(&self, id: &str) -> String {
        format!("{}signalbox:swap:{id}", self.prefix)
    }
}

fn json(value: &impl Serialize) -> String {
    // Strings, numbers and options of them under string keys always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

fn lease() -> Vec<u8> {
    millis(LEASE).to_string().into_bytes()
}
