//! The configuration: `platform.toml`, environment variables, and their meaning.
//!
//! A file is read in two steps: raw text → settings, each with its place → [`Config`], or a list of *every* error in
//! it. A [`Config`] is always valid, so code that has one need not check it again. One table, [`keys`], lists all keys
//! with kind, bounds and default; the reader, the environment variables and the reference manual are derived from it.
//!
//! This module is a leaf: it depends on nothing in the rest of the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use signalbox_protocol::event_type::Patterns;

mod advice;
pub mod environment;
mod errors;
mod files;
mod http;
mod key;
pub mod keys;
pub mod live;
mod load;
mod secret_files;
pub mod units;

mod assemble;
mod auth;
mod checks;
mod document;
mod dotenv;
mod json;
mod nearest;
mod plugin_config;
mod plugins;
mod room_rules;
mod rooms;
mod settings;
pub mod shown;
#[cfg(test)]
mod tests;
mod url_checks;
mod values;
mod webhook_config;
mod webhooks;

pub use assemble::SECRET_BYTES_MIN;
pub use auth::{AuthConfig, JwtConfig, JwtKeySource, TokenTimes};
pub use checks::normal_origin;
pub use errors::{ConfigError, ConfigErrors, SettingPlace};
pub use files::read_text;
pub use http::HttpLimits;
pub use load::DEFAULT_FILE;
pub use plugin_config::{
    InstanceMode, OnFailure, PluginConfig, PluginLimits, PluginVersionsConfig, ProbationConfig,
    RolloutConfig,
};
pub use room_rules::{HistoryRule, JoinRule, RoomRule, RoomsConfig, SendRule, UsersConfig};
pub use shown::Shown;
pub use webhook_config::{WebhookConfig, WebhookEvent};

/// The configuration of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[auth]`.
    pub auth: AuthConfig,
    /// The times in `[auth]` that apply to tokens that were accepted.
    pub token_times: TokenTimes,
    /// `[broker]`.
    pub broker: BrokerConfig,
    /// `[events]`.
    pub events: EventsConfig,
    /// `[[rooms]]`.
    pub rooms: RoomsConfig,
    /// `[users]`.
    pub users: UsersConfig,
    /// `[presence]`.
    pub presence: PresenceConfig,
    /// `[[webhooks]]`, at most 16, in the order of the file.
    pub webhooks: Vec<WebhookConfig>,
    /// `[limits]`.
    pub limits: Limits,
    /// `[cloudwatch]`; if `None`, nothing is pushed. Cannot be changed while the server runs.
    pub cloudwatch: Option<CloudWatchConfig>,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// `[demo]`.
    pub demo: DemoConfig,
    /// `[tracing]`; if `None`, messages are not traced.
    pub tracing: Option<TracingConfig>,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[plugin_cache] dir`: the absolute folder for compiled plugins; if `None`, they are not kept.
    pub plugin_cache_dir: Option<PathBuf>,
    /// `[plugin_versions]`. Cannot be changed while the server runs.
    pub plugin_versions: PluginVersionsConfig,
    /// `[plugin_probation]`.
    pub plugin_probation: ProbationConfig,
    /// `[[plugins]]`, in the order of the chain.
    pub plugins: Vec<PluginConfig>,
    /// The files that secrets were read from, absolute.
    pub secret_files: BTreeSet<PathBuf>,
    /// Valid settings that are probably not intended, each as a sentence with advice.
    pub advice: Vec<String>,
    /// The whole configuration in a form that can be shown, without secrets.
    pub shown: Shown,
    /// The whole configuration in a form that can be compared.
    pub resolved: live::Resolved,
}

/// `[server]`: the listener, and settings of all connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// The address to listen on. Cannot be changed while the server runs.
    pub listen: SocketAddr,
    /// The name of this node, 1–64 of `A-Z a-z 0-9 _ . -`. Cannot be changed while the server runs.
    pub node_id: String,
    /// How long a drain may take, from the first close to the exit; at most 1 h.
    pub drain_timeout: Duration,
    /// Silence after which the server pings, 10 ms – 1 h.
    pub ping_interval: Duration,
    /// Silence after which the server drops the connection, 10 ms – 24 h; longer than `ping_interval`.
    pub idle_timeout: Duration,
    /// The web pages that may connect.
    pub allowed_origins: AllowedOrigins,
    /// The hosts that a request may name in mode `none` on a loopback, in addition to those of the machine itself: lower case, without
    /// a port, or `*.` and a domain.
    pub allowed_hosts: Vec<String>,
    /// The path of the WebSocket, without a slash at its end. Cannot be changed while the server runs.
    pub websocket_path: String,
    /// Whether clients may connect by server-sent events.
    pub sse: bool,
    /// The address that serves `/metrics`, `/api/` and `/admin/` instead of `listen`. Cannot be changed while the server runs.
    pub internal_listen: Option<SocketAddr>,
    /// The proxies that are trusted to name the address of a client.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections of [`trusted_proxies`](Self::trusted_proxies) begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether clients may see which versions of plugins handled their messages.
    pub trace_plugins: bool,
}

/// The web pages that may connect, by `Origin`. Clients that send none are not browsers and are admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// The page's host must be the host that the upgrade names.
    SameHost,
    /// Any page (`"*"`).
    Any,
    /// These origins, lower case: `https://app.example.com`, `null`, or `https://*.example.com` for every host below it.
    List(Vec<String>),
}

/// `[broker]`: the transport between nodes. Cannot be changed while the server runs, except for the user and the password of
/// Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerConfig {
    /// Inside this process; one node.
    Memory,
    /// Redis, with `[redis]`.
    Redis(RedisConfig),
}

/// `[redis]`: its address, and how nodes share it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// At least one address, `redis://` or `rediss://`. They may hold passwords.
    pub urls: Vec<String>,
    /// How the servers work together.
    pub mode: RedisMode,
    /// The master that the sentinels watch; if `None`, the only one.
    pub sentinel_master: Option<String>,
    /// A PEM file with the certificate authority for `rediss://`; if `None`, those of the system are used.
    pub ca_file: Option<PathBuf>,
    /// The other software that shares the servers.
    pub compat: RedisCompat,
    /// The prefix of every key and channel.
    pub key_prefix: String,
    /// How long a command may take, 10 ms – 60 s.
    pub command_timeout: Duration,
}

/// How the Redis servers work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// Ask the servers.
    Auto,
    /// One server has all keys.
    Single,
    /// The servers share the keys.
    Cluster,
    /// Sentinels name the server that has all keys.
    Sentinel,
}

/// The other software that uses the keys and channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisCompat {
    /// Only Signalbox nodes, and workers that publish.
    None,
    /// Also nodes of the Go server `websocket-app`.
    WebsocketApp,
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisConfig")
            .field("urls", &format_args!("{} of them", self.urls.len()))
            .field("mode", &self.mode)
            .field("sentinel_master", &self.sentinel_master)
            .field("ca_file", &self.ca_file)
            .field("compat", &self.compat)
            .field("key_prefix", &self.key_prefix)
            .field("command_timeout", &self.command_timeout)
            .finish()
    }
}

/// `[events]`: the event types that clients may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    /// The types that clients may send, in addition to built-in types and those that plugins handle.
    pub client: Patterns,
}

/// `[presence]`: how members of a room learn who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// Time from the last connection of a user in a room to the report that the user left, at most 1 h.
    pub grace: Duration,
    /// The shortest time between two reports about a room, 10 ms – 60 s.
    pub flush: Duration,
    /// The most users of a room that are listed, 1–100,000.
    pub members_max: usize,
}

/// `[limits]`: the limits of a connection and of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame a client may send, in bytes; a larger one closes the connection with 1009.
    pub frame_bytes_max: usize,
    /// Bytes that may be queued for one connection; above that it is closed with 4001.
    pub outbox_bytes_max: usize,
    /// Sustained messages of one connection per second; 0 means no limit.
    pub messages_per_second: u32,
    /// Messages of one connection in one burst.
    pub messages_burst: u32,
    /// Time from the first byte of a message to its last, 10 ms – 1 h; beyond it the connection is closed with 4005.
    pub message_time_max: Duration,
    /// Sustained control frames and small fragments of one connection per second; 0 means no limit.
    pub control_frames_per_second: u32,
    /// Memory of unfinished messages on this node, in bytes; 0 means no limit.
    pub unfinished_bytes_max: usize,
    /// Connections of one user on this node; 0 means no limit.
    pub connections_per_user_max: usize,
    /// Connections of this node; 0 means no limit.
    pub connections_max: usize,
    /// Connections of one address to this node; 0 means no limit.
    pub connections_per_address_max: usize,
    /// Connections that this node accepts per second; 0 means no limit.
    pub upgrades_per_second: u32,
    /// Time from accepting a TCP connection to its first byte, and time for the body of a call of `/api/`.
    pub upgrade_timeout: Duration,
    /// Limits of a connection before it becomes a WebSocket.
    pub http: HttpLimits,
    /// Rooms that one connection may join.
    pub rooms_per_connection_max: usize,
    /// Bytes of the names of all rooms that one connection may join.
    pub room_name_bytes_max: usize,
    /// Messages of a history that are sent to one client that joins or reads back, 1–10,000.
    pub history_replay_max: usize,
    /// How long the answer to a message that is handled once is kept, 1 s – 24 h.
    pub once_time: Duration,
    /// Memory of all histories on the memory broker, in bytes.
    pub history_bytes_max: usize,
    /// Largest plugin file, in bytes.
    pub plugin_file_bytes_max: usize,
}

/// `[cloudwatch]`: the destination of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudWatchConfig {
    /// The namespace of the metrics.
    pub namespace: String,
    /// The region; if `None`, the SDK determines it.
    pub region: Option<String>,
    /// The endpoint, `http://` or `https://`; if `None`, the SDK determines it.
    pub endpoint: Option<String>,
    /// Time between two pushes, 1 s – 1 h.
    pub interval: Duration,
    /// The resolution at which CloudWatch stores the values.
    pub storage_resolution: StorageResolution,
}

/// The resolution at which CloudWatch stores values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageResolution {
    /// One second.
    Second,
    /// One minute.
    Minute,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether `/metrics` is served.
    pub prometheus: bool,
}

/// `[demo]`. Cannot be changed while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoConfig {
    /// Whether the chat page is served.
    pub enabled: bool,
    /// Whether it is also served on an address that is not a loopback.
    pub public: bool,
}

/// `[tracing]`: the share of traced messages, and the destination of spans. Cannot be changed while the server runs.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// The collector's URL, `http://` or `https://`, without the path of the signal.
    pub otlp_endpoint: String,
    /// The share of messages that are traced, 0 – 1.
    pub sample_ratio: f64,
    /// The maximum number of traces that this node starts per second.
    pub traces_per_second: u32,
}

/// `[admin]`.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The key of `/admin/`; if `None`, every call gets 401.
    pub key: Option<String>,
    /// Time limit for uploading a component, 10 ms – 1 h.
    pub upload_timeout: Duration,
}

/// `[api]`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// The keys of `/api/`; if there are none, every call gets 401.
    pub keys: Vec<String>,
}

impl std::fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminConfig")
            .field("key", &self.key.as_ref().map(|_| values::MASK))
            .field("upload_timeout", &self.upload_timeout)
            .finish()
    }
}

impl std::fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiConfig {{ keys: {} of them }}", self.keys.len())
    }
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            flush: Duration::from_millis(500),
            members_max: 1_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 64 << 10,
            outbox_bytes_max: 1 << 20,
            messages_per_second: 200,
            messages_burst: 400,
            message_time_max: Duration::from_secs(60),
            control_frames_per_second: 50,
            unfinished_bytes_max: 64 << 20,
            connections_per_user_max: 32,
            connections_max: 0,
            connections_per_address_max: 0,
            upgrades_per_second: 0,
            upgrade_timeout: Duration::from_secs(10),
            http: HttpLimits::default(),
            rooms_per_connection_max: 128,
            room_name_bytes_max: 8 << 10,
            history_replay_max: 300,
            once_time: Duration::from_secs(120),
            history_bytes_max: 256 << 20,
            plugin_file_bytes_max: 32 << 20,
        }
    }
}

/// Environment variables, by name. A map instead of the process's environment, so that tests do not have to change
/// that.
pub type Environment = BTreeMap<String, String>;
