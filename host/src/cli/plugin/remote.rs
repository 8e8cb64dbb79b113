//! `signalbox plugin list`, `reload`, `rollback` and `push`: the operators' API from a shell.
//!
//! Exit codes: 0, done or nothing to do; 2, the component was refused; 1, anything else.

mod show;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use hyper::{Method, body::Bytes};
use serde_json::Value;

use super::{
    super::{
        EXIT_CONFIG,
        http::{HttpClient, HttpResponse},
    },
    stem,
};

/// The URL of a server if none is given.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The HTTP statuses of this API that matter to this client.
const OK: u16 = 200;
const UNAUTHORIZED: u16 = 401;
const REFUSED: u16 = 422;

/// The server to talk to. The key comes from a variable or a file, never from an argument that others could see.
#[derive(Args)]
pub(in crate::cli) struct RemoteServer {
    /// URL of the server; default: SIGNALBOX_URL, else http://127.0.0.1:8080
    #[arg(long)]
    url: Option<String>,
    /// A file with the key (admin.key); default: the variable SIGNALBOX_ADMIN_KEY
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// A PEM file with the authority of the server's certificate; default: the system's authorities
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// How long an answer may take
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

/// The nodes that a push reaches.
#[derive(Clone, Copy)]
pub(super) enum PushScope {
    /// `force`: even if the version was rolled back on probation.
    Node {
        force: bool,
    },
    Cluster {
        quorum: Option<u32>,
    },
}

impl RemoteServer {
    pub(super) fn list(&self) -> ExitCode {
        self.run(async |client| {
            let answer = client.call(Method::GET, "/admin/plugins", Bytes::new());
            Ok(self.conclude(answer.await?, show::list))
        })
    }

    pub(super) fn reload(&self, plugin: &str, force: bool, cluster: bool) -> ExitCode {
        let query = match (force, cluster) {
            (_, true) => "?scope=cluster",
            (true, false) => "?force=true",
            (false, false) => "",
        };
        self.run(async |client| {
            let path = format!("/admin/plugins/{}/reload{query}", encoded(plugin));
            let answer = client.call(Method::POST, &path, Bytes::new());
            Ok(self.conclude(answer.await?, show::changed))
        })
    }

    pub(super) fn roll_back(&self, plugin: &str, to: Option<&str>) -> ExitCode {
        let query = to.map_or_else(String::new, |to| format!("?to={}", encoded(to)));
        self.run(async |client| {
            let path = format!("/admin/plugins/{}/rollback{query}", encoded(plugin));
            let answer = client.call(Method::POST, &path, Bytes::new());
            Ok(self.conclude(answer.await?, show::changed))
        })
    }

    pub(super) fn push(
        &self,
        file: &Path,
        name: Option<&str>,
        scope: PushScope,
        no_probation: bool,
    ) -> ExitCode {
        let query = match scope {
            PushScope::Node { force: false } => "scope=node".to_owned(),
            PushScope::Node { force: true } => "force=true".to_owned(),
            PushScope::Cluster { quorum: None } => "scope=cluster".to_owned(),
            PushScope::Cluster {
                quorum: Some(quorum),
            } => format!("scope=cluster&quorum={quorum}"),
        };
        let probation = if no_probation { "&probation=false" } else { "" };
        let plugin = name.map_or_else(|| stem(file), str::to_owned);
        self.run(async |client| {
            let bytes = std::fs::read(file).with_context(|| format!("{}", file.display()))?;
            let path = format!("/admin/plugins/{}", encoded(&plugin));
            // A server that refuses an upload may answer before it has read all of it, and that answer may be lost. So
            // a wrong key or name is detected without an upload.
            let known = client.call(Method::GET, &path, Bytes::new()).await?;
            if known.status != OK {
                return Ok(self.conclude(known, show::changed));
            }
            let path = format!("{path}?{query}{probation}");
            let answer = client.call(Method::PUT, &path, bytes.into()).await?;
            Ok(self.conclude(answer, show::changed))
        })
    }

    /// Whether a key for the server is given.
    pub(super) fn has_key(&self) -> bool {
        self.key_file.is_some()
            || std::env::var("SIGNALBOX_ADMIN_KEY").is_ok_and(|key| !key.is_empty())
    }

    fn run(&self, work: impl AsyncFnOnce(HttpClient) -> anyhow::Result<ExitCode>) -> ExitCode {
        let ran = self.client().and_then(|client| {
            if client.is_open() {
                eprintln!("warning: the key goes over the network unencrypted; use https://");
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(work(client))
        });
        ran.unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        })
    }

    fn client(&self) -> anyhow::Result<HttpClient> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = self.url.clone().or_else(|| variable("SIGNALBOX_URL"));
        let key = match &self.key_file {
            Some(file) => {
                let key = std::fs::read_to_string(file);
                key.with_context(|| format!("{}", file.display()))?
                    .trim()
                    .to_owned()
            }
            None => variable("SIGNALBOX_ADMIN_KEY").unwrap_or_default(),
        };
        if key.is_empty() {
            bail!(
                "this takes the server's admin.key; set SIGNALBOX_ADMIN_KEY, or name a file with --key-file"
            );
        }
        let url = url.as_deref().unwrap_or(DEFAULT_URL);
        HttpClient::new(url, &key, self.ca_file.as_deref(), self.timeout)
    }

    /// Prints the server's answer and returns the exit code.
    fn conclude(&self, answer: HttpResponse, show: fn(&Value) -> String) -> ExitCode {
        let HttpResponse { status, body } = answer;
        if self.json && body.is_object() {
            println!("{body}");
        } else if status == OK {
            print!("{}", show(&body));
        } else {
            eprint!("{}", show::error(status, &body));
        }
        match status {
            OK => ExitCode::SUCCESS,
            REFUSED => ExitCode::from(EXIT_CONFIG),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Percent-encodes a part of a path or a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded += &format!("%{other:02X}"),
        }
    }
    encoded
}
