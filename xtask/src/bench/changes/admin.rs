//! The server's API of operators, as far as the case needs it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::http;

/// Waits between two tries where the server says that there were too many calls, and how many tries there are.
const PAUSE: Duration = Duration::from_millis(100);
const TRIES: u32 = 50;

/// A server, and the key to it.
pub(super) struct Admin {
    pub(super) address: SocketAddr,
    pub(super) key: &'static str,
}

impl Admin {
    /// What the server says about a plugin.
    pub(super) fn plugin(&self, name: &str) -> anyhow::Result<Value> {
        self.call("GET", &format!("/admin/plugins/{name}"), &[])
    }

    /// Swaps `component` in, at once and for everybody. Returns the version that is live then.
    pub(super) fn push(&self, name: &str, component: &[u8]) -> anyhow::Result<String> {
        let path = format!("/admin/plugins/{name}?force=true");
        let answer = self.call("PUT", &path, component)?;
        if answer["outcome"] != "live" {
            bail!("a push of {name} did not go live: {answer}");
        }
        let version = answer["version"].as_str();
        version
            .map(str::to_owned)
            .context("the answer to a push names no version")
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        for _ in 0..TRIES {
            let (status, answer) = self
                .try_to_call(method, path, body)
                .with_context(|| format!("{method} {path} failed"))?;
            match status {
                200 => return Ok(answer),
                429 => thread::sleep(PAUSE),
                _ => bail!("{method} {path} answered {status}: {answer}"),
            }
        }
        bail!("{method} {path} was answered with 429 {TRIES} times")
    }

    fn try_to_call(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(u16, Value)> {
        let head = format!("Authorization: Bearer {}\r\n", self.key);
        let (status, answer) = http::call(self.address, (method, path), &head, body, None)?;
        Ok((status, serde_json::from_str(&answer).unwrap_or_default()))
    }
}
