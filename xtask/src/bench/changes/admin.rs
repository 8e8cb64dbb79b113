//! A client for the server's operator API, as far as this case needs it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::http;

/// Pause between two attempts if the server reports too many calls, and the number of attempts.
const PAUSE: Duration = Duration::from_millis(100);
const TRIES: u32 = 50;

/// A server, and the key for its API.
pub(super) struct Admin {
    pub(super) address: SocketAddr,
    pub(super) key: &'static str,
}

impl Admin {
    /// Returns the server's information about a plugin.
    pub(super) fn plugin(&self, name: &str) -> anyhow::Result<Value> {
        self.call("GET", &format!("/admin/plugins/{name}"), &[])
    }

    /// Swaps in `component`, at once and for all users. Returns the version that is live afterwards.
    pub(super) fn push(&self, name: &str, component: &[u8]) -> anyhow::Result<String> {
        let path = format!("/admin/plugins/{name}?force=true");
        let answer = self.call("PUT", &path, component)?;
        if answer["outcome"] != "live" {
            bail!("a push of {name} did not go live: {answer}");
        }
        let version = answer["version"].as_str().map(str::to_owned);
        version.context("the answer to a push names no version")
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        let head = format!("Authorization: Bearer {}\r\n", self.key);
        for _ in 0..TRIES {
            let (status, answer) = http::call(self.address, (method, path), &head, body, None)
                .with_context(|| format!("{method} {path} failed"))?;
            match status {
                200 => return Ok(serde_json::from_str(&answer)?),
                429 => thread::sleep(PAUSE),
                _ => bail!("{method} {path} answered {status}: {answer}"),
            }
        }
        bail!("{method} {path} was answered with 429 {TRIES} times")
    }
}
