//! The server's API of operators, as far as the case needs it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

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
        let Self { address, key } = self;
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&answer)
    }
}

/// Status and body of an answer whose connection was closed after it.
fn parse(answer: &[u8]) -> anyhow::Result<(u16, Value)> {
    let text = std::str::from_utf8(answer)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.context("the answer has no status")?;
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_taken_apart_into_status_and_body() {
        let answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(answer).ok(), Some((409, json!({"a": 1}))));
        let empty = b"HTTP/1.1 429 Too Many Requests\r\n\r\n";
        assert_eq!(parse(empty).ok(), Some((429, Value::Null)));
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
