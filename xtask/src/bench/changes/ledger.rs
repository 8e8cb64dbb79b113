//! Records how many messages each version saw: the calls of all versions of a plugin, for each time that one was live.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;

/// Calls by version and the time at which it went live. The server forgets older versions, and forgets that a version
/// was live before once it comes back, so its figures are recorded after every change.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<(String, String), u64>);

impl Ledger {
    /// Records the server's figures about the plugin. Returns whether they are final for all but the live version: no
    /// other version still answers calls that began on it.
    pub(super) fn note(&mut self, plugin: &Value) -> anyhow::Result<bool> {
        let versions = plugin["versions"]
            .as_array()
            .context("the server shows no versions")?;
        let mut is_final = true;
        for version in versions {
            let text = |field: &str| version[field].as_str().map(str::to_owned);
            match version["state"].as_str() {
                // A canary keeps its calls when it goes live, and they are recorded then. A refused version had none.
                Some("canary" | "failed") => continue,
                Some("draining") => is_final = false,
                _ => {}
            }
            let stint = text("sha256").zip(text("since"));
            let stint = stint.context("a version has no sha256 and no time")?;
            let calls = version["calls"]
                .as_u64()
                .context("a version has no calls")?;
            self.0.insert(stint, calls);
        }
        Ok(is_final)
    }

    /// The calls of all versions.
    pub(super) fn calls(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(sha256: &str, since: u32, state: &str, calls: u64) -> Value {
        json!({"sha256": sha256, "since": since.to_string(), "state": state, "calls": calls})
    }

    #[test]
    fn each_time_that_a_version_was_live_counts_once_with_its_last_figure() {
        let mut ledger = Ledger::default();
        let mut note = |versions: Value| ledger.note(&json!({ "versions": versions })).ok();
        let live = version("a", 1, "live", 10);
        let canary = version("b", 2, "canary", 3);
        assert_eq!(note(json!([live, canary])), Some(true));
        let (live, old) = (
            version("b", 3, "probation", 5),
            version("a", 1, "draining", 11),
        );
        assert_eq!(note(json!([live, old])), Some(false));
        let old = version("a", 1, "retired", 12);
        assert_eq!(note(json!([live, old])), Some(true));
        // Version `a` comes back, and its earlier calls are no longer shown.
        let (live, old) = (
            version("a", 4, "live", 1),
            version("b", 3, "rolled_back", 7),
        );
        assert_eq!(note(json!([live, old])), Some(true));
        assert_eq!(note(json!("nothing")), None);
        assert_eq!(ledger.calls(), 12 + 7 + 1);
    }
}
