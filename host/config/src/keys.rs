//! The table of all keys: the single place that defines their names, kinds, bounds and defaults.
//!
//! The file reader, the names of environment variables and `docs/configuration.md` are derived from it.

use std::time::Duration;

pub use super::key::{ChangeEffect, FILE_SUFFIX, Key, PREFIX};
pub(super) use super::key::{ValueKind, is_list};
use super::{checks, http, url_checks};

/// Variables with our prefix that are not settings of the server: the command line client reads them.
pub const RESERVED_VARIABLES: [&str; 2] = ["SIGNALBOX_ADMIN_KEY", "SIGNALBOX_URL"];

/// Variables of other software, with the keys that they set: those of the Go server `websocket-app`, and of
/// OpenTelemetry. `ENVIRONMENT` sets nothing, and is listed so that nobody has to remove it. `WSS_PORT` replaces only
/// the port of the address.
pub const OLD_VARIABLES: [(&str, Option<(&str, &str)>); 5] = [
    ("WSS_PORT", Some(("server", "listen"))),
    ("JWT_SECRET", Some(("auth", "jwt_secret"))),
    ("REDIS_URI", Some(("redis", "url"))),
    ("ENVIRONMENT", None),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        Some(("tracing", "otlp_endpoint")),
    ),
];

/// The sections, in the order of the reference.
pub const SECTIONS: [&str; 20] = [
    "server",
    "auth",
    "broker",
    "redis",
    "events",
    "rooms",
    "users",
    "presence",
    "webhooks",
    "limits",
    "cloudwatch",
    "metrics",
    "demo",
    "tracing",
    "admin",
    "api",
    "plugin_cache",
    "plugin_versions",
    "plugin_probation",
    "plugins",
];

/// The key of a section, if it exists.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.section == section && key.name == name)
}

/// The names of a section's keys.
pub fn names(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .filter(move |key| key.section == section)
        .map(|key| key.name)
}

/// The names that a table of a section may hold. `outer` is empty for the section itself, and `history.` for its table
/// `history`.
pub(super) fn names_within(section: &str, outer: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = names(section)
        .filter_map(|name| name.strip_prefix(outer))
        .map(|rest| rest.split_once('.').map_or(rest, |(first, _)| first))
        .collect();
    names.dedup();
    names
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: ValueKind,
    default: &'static str,
    example: &'static str,
    change: ChangeEffect,
    meaning: &'static str,
) -> Key {
    Key {
        section,
        name,
        kind,
        default,
        example,
        change,
        secret: false,
        meaning,
    }
}

const fn millis(from: u64, to: u64) -> ValueKind {
    ValueKind::Time(Duration::from_millis(from), Duration::from_millis(to))
}

const ANY: ValueKind = ValueKind::Text(checks::any);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
/// 365.25 days, which durations call a year.
const YEAR: u64 = 8_766 * HOUR;

use ChangeEffect::{Live, Restart};

/// Every key, section by section, in the order of the reference.
#[rustfmt::skip]
pub const KEYS: [Key; 128] = [
    key("server", "listen", ValueKind::Address, "127.0.0.1:8080", "127.0.0.1:9090", Restart,
        "The address to listen on; `0.0.0.0:8080` for every address of the machine"),
    key("server", "node_id", ValueKind::Text(checks::node_id), "", "node-b", Restart,
        "The name of this node in logs, metrics and routes; empty: the name of the host"),
    key("server", "drain_timeout", millis(0, HOUR), "8s", "3s", Live,
        "The most time from the signal to the exit: closing connections, the last metrics and spans, leaving Redis"),
    key("server", "ping_interval", millis(10, HOUR), "25s", "5s", Live,
        "How long a client is silent before the server pings it"),
    key("server", "idle_timeout", millis(10, 24 * HOUR), "60s", "90s", Live,
        "How long a client is silent before the server drops the connection; longer than `ping_interval`"),
    key("server", "allowed_origins", ValueKind::Texts(http::origin), "", "https://a.example.com,https://b.example.com", Live,
        "The web pages that may connect, such as `https://app.example.com`, `https://*.example.com`, `null` or `file://`; empty: those of the same host; `*`: any"),
    key("server", "allowed_hosts", ValueKind::Texts(http::host), "", "chat.local,*.example.test", Live,
        "The hosts that a request may name with `auth.mode = \"none\"` on a loopback, in addition to `localhost`, `*.localhost` and IP addresses; names without a port, or `*.example.com`"),
    key("server", "websocket_path", ValueKind::Text(http::websocket_path), "/ws", "/realtime", Restart,
        "The path of the WebSocket, also with a final slash"),
    key("server", "sse", ValueKind::Bool, "true", "false", Live,
        "Whether clients may also connect by server-sent events, with `GET /sse` and `POST /sse/<connectionId>`"),
    key("server", "internal_listen", ValueKind::Text(http::optional_address), "", "127.0.0.1:9091", Restart,
        "A second listener for `/metrics`, `/api/` and `/admin/`, which the first one then answers with 404; empty: none"),
    key("server", "trusted_proxies", ValueKind::Texts(http::network), "", "10.0.0.0/8,fd00::/8", Live,
        "The proxies that may report the address of a client (`X-Forwarded-For`, `Forwarded`, the PROXY protocol): addresses and networks such as `10.0.0.0/8`"),
    key("server", "proxy_protocol", ValueKind::Choice(&["off", "on"]), "off", "on", Live,
        "Whether connections of `trusted_proxies` to `listen` begin with a header of the PROXY protocol, version 1 or 2"),
    key("server", "trace_plugins", ValueKind::Bool, "false", "true", Live,
        "Whether a client that connects with `?trace=plugins` gets, in each `ack`, the versions of the plugins that saw its message"),

    key("auth", "mode", ValueKind::Choice(&["none", "jwt"]), "none", "jwt", Restart,
        "The source of a client's user ID: the client itself with `?userId=`, or a JSON Web Token"),
    key("auth", "allow_insecure", ValueKind::Bool, "false", "true", Live,
        "Whether mode `none` is allowed on an address that is not a loopback"),
    key("auth", "jwt_secret", ANY, "", "0123456789abcdef0123456789abcdef", Live,
        "The secret of HS256, at least 32 bytes; one of the four key sources of mode `jwt`").secret(),
    key("auth", "jwt_secret_previous", ANY, "", "fedcba9876543210fedcba9876543210", Live,
        "A second secret of HS256 that is accepted in addition to `jwt_secret` while secrets are rotated").secret(),
    key("auth", "jwt_key_file", ValueKind::Text(checks::optional_path), "", "key.pem", Live,
        "A PEM file with the public key of RS256 or ES256; one of the four key sources of mode `jwt`"),
    key("auth", "jwks_file", ValueKind::Text(checks::optional_path), "", "jwks.json", Live,
        "A JWKS file with public keys of RS256 or ES256, chosen by `kid`; one of the four key sources of mode `jwt`"),
    key("auth", "jwks_url", ValueKind::Text(url_checks::jwks_url), "", "https://login.example.com/.well-known/jwks.json", Live,
        "The URL of a JWKS with public keys of RS256 or ES256; one of the four key sources of mode `jwt`"),
    key("auth", "jwks_refresh_interval", millis(SECOND, 24 * HOUR), "10m", "1h", Live,
        "How often `jwks_url` is fetched again; a token with an unknown `kid` leads to a fetch too, every 30 s at most"),
    key("auth", "jwt_issuer", ANY, "", "https://login.example.com", Live,
        "The `iss` that a token must carry; empty: not checked"),
    key("auth", "jwt_audience", ANY, "", "chat", Live,
        "The `aud` that a token must carry; empty: not checked"),
    key("auth", "grace", millis(0, HOUR), "25s", "1m", Live,
        "How long a connection stays open after its token expired, so that the client can send a new one; then it is closed with 4500"),
    key("auth", "revocation_time_max", millis(SECOND, YEAR), "24h", "7days", Live,
        "How long a revoked token is remembered at most, and if the backend does not say how long: as long as tokens live, or longer"),

    key("broker", "kind", ValueKind::Choice(&["memory", "redis"]), "memory", "redis", Restart,
        "The transport between nodes: `memory` for a single node, `redis` for a cluster"),

    key("redis", "url", ValueKind::Text(url_checks::redis_urls), "redis://127.0.0.1:6379", "rediss://cache.example.com:6380", Restart,
        "The servers, comma separated: one, some of a cluster, or the sentinels; `rediss://` for TLS; user and password are live").secret(),
    key("redis", "mode", ValueKind::Choice(&["auto", "single", "cluster", "sentinel"]), "auto", "cluster", Restart,
        "How the servers work together; `auto` asks them"),
    key("redis", "sentinel_master", ANY, "", "mymaster", Restart,
        "The name of the master that the sentinels watch; empty: the only one"),
    key("redis", "ca_file", ValueKind::Text(checks::optional_path), "", "ca.pem", Restart,
        "A PEM file with the certificate authority of `rediss://`; empty: those of the system"),
    key("redis", "compat", ValueKind::Choice(&["none", "websocket-app"]), "none", "websocket-app", Restart,
        "Whether nodes of `websocket-app` share the servers"),
    key("redis", "key_prefix", ValueKind::Text(checks::key_prefix), "", "chat:", Restart,
        "The prefix of every key and channel"),
    key("redis", "command_timeout", millis(10, 60 * SECOND), "500ms", "1s", Restart,
        "How long a command may take; after it a sender gets `unavailable`"),

    key("events", "client", ValueKind::Texts(checks::client_events), "chat_message", "chat_message,game.*", Live,
        "The event types that clients may send in addition to those that plugins handle: names, prefixes with a final `*`, or `*`; backends may send any"),

    key("rooms", "match", ValueKind::Text(checks::room_pattern), "", "chat:*", Live,
        "The rooms that the rule is for, unique, required: a name, a prefix with a final `*`, or `*`; the closest rule applies, a name before the longest prefix"),
    key("rooms", "history.size", ValueKind::Count(1, 10_000), "", "100", Live,
        "The most messages that are kept for members that come back or come late, with `history.time` only; without both, none are kept"),
    key("rooms", "history.time", millis(SECOND, 30 * DAY), "", "5m", Live,
        "How long they are kept after the last one, with `history.size` only"),
    key("rooms", "join", ValueKind::Choice(&["open", "claim", "token", "backend"]), "open", "claim", Live,
        "The clients that may join: `open` any, `claim` those with a token that lists the room in its claim `rooms`, `token` those that join with a token for this room, `backend` none; plugins that export `rooms` may refuse more"),
    key("rooms", "send", ValueKind::Choice(&["members", "backend"]), "members", "backend", Live,
        "The senders to the room: `members` members and backends, `backend` backends only"),
    key("rooms", "presence", ValueKind::Bool, "false", "true", Live,
        "Whether members that ask for it get the users in the room, and backends can read them"),
    key("rooms", "members_max", ValueKind::Count(0, 10_000_000), "0", "100", Live,
        "The most users in the room, on all nodes, with `presence` only; over it a join gets `room_full`; 0: no limit"),

    key("users", "history.size", ValueKind::Count(1, 10_000), "", "50", Live,
        "The most direct messages of each user that are kept for connections that come back, with `history.time` only; without both, none are kept"),
    key("users", "history.time", millis(SECOND, 30 * DAY), "", "5m", Live,
        "How long they are kept after the last one, with `history.size` only"),

    key("presence", "grace", millis(0, HOUR), "5s", "10s", Live,
        "Time from the last connection of a user in a room to `left`; for a user who is back by then nothing is reported"),
    key("presence", "flush", millis(10, 60 * SECOND), "500ms", "2s", Live,
        "The shortest time between two `presence` frames about a room"),
    key("presence", "members_max", ValueKind::Count(1, 100_000), "1000", "100", Live,
        "The most users of a room that are listed; over it members get only their number"),

    key("webhooks", "url", ValueKind::Text(url_checks::webhook_url), "", "https://example.com/signalbox", Live,
        "The address that events are sent to, unique, required"),
    key("webhooks", "secret", ANY, "", "0123456789abcdef0123456789abcdef", Live,
        "The secret that signs requests, at least 32 bytes; it or `secret_file` is required").secret(),
    key("webhooks", "secret_file", ValueKind::Text(checks::optional_path), "", "webhook.secret", Live,
        "A file with that secret, relative to the folder of this file"),
    key("webhooks", "secret_previous", ANY, "", "fedcba9876543210fedcba9876543210", Live,
        "A second secret that signs requests too while secrets are rotated").secret(),
    key("webhooks", "secret_previous_file", ValueKind::Text(checks::optional_path), "", "webhook.old.secret", Live,
        "A file with that second secret"),
    key("webhooks", "events", ValueKind::Texts(checks::webhook_event), "", "connected,disconnected", Live,
        "The events that it gets, required: `connected`, `disconnected`, `room_occupied`, `room_vacated`, `member_joined`, `member_left`, `undelivered`"),
    key("webhooks", "rooms", ValueKind::Texts(checks::room_pattern), "", "lobby,chat:*", Live,
        "The rooms whose events it gets: names, prefixes with a final `*`, or `*`; empty: all"),
    key("webhooks", "batch_max", ValueKind::Count(1, 1_000), "100", "10", Live,
        "The most events in one request"),
    key("webhooks", "batch_time", millis(0, 60 * SECOND), "1s", "100ms", Live,
        "How long an event waits for others that go with it in one request"),
    key("webhooks", "timeout", millis(10, 60 * SECOND), "10s", "3s", Live,
        "Time for one request, from the connection to the status of the answer"),
    key("webhooks", "queue_max", ValueKind::Count(1, 1_000_000), "10000", "100000", Live,
        "The most events that wait to be sent; over it the oldest are dropped"),

    key("limits", "frame_bytes_max", ValueKind::Bytes(128, 16 * MIB), "64KiB", "1MiB", Live,
        "Largest frame of a client; a larger one closes the connection with 1009"),
    key("limits", "outbox_bytes_max", ValueKind::Bytes(KIB, GIB), "1MiB", "4MiB", Live,
        "Bytes that may wait to be sent to one connection; over it the connection is closed with 4001"),
    key("limits", "messages_per_second", ValueKind::Count(0, 1_000_000), "200", "50", Live,
        "Sustained messages of one connection per second; 0: no limit"),
    key("limits", "messages_burst", ValueKind::Count(1, 1_000_000), "400", "100", Live,
        "Messages of one connection in one burst"),
    key("limits", "message_time_max", millis(10, HOUR), "60s", "20s", Live,
        "Time from the first byte of a message to its last; over it the connection is closed with 4005"),
    key("limits", "control_frames_per_second", ValueKind::Count(0, 1_000_000), "50", "20", Live,
        "Sustained control frames and small fragments of one connection per second, with bursts of ten times that; over it the connection is closed with 4503; 0: no limit"),
    key("limits", "unfinished_bytes_max", ValueKind::Bytes(0, 64 * GIB), "64MiB", "256MiB", Live,
        "Memory of this node for messages that have begun and not ended; over it connections are closed with 4006; 0: no limit"),
    key("limits", "connections_per_user_max", ValueKind::Count(0, 1_000_000), "32", "8", Live,
        "Connections of one user; over it the one that is silent for longest and missed a ping is replaced, else the upgrade gets 429; 0: no limit"),
    key("limits", "connections_max", ValueKind::Count(0, 10_000_000), "0", "10000", Live,
        "Connections of this node; over it the upgrade gets 503; 0: no limit"),
    key("limits", "connections_per_address_max", ValueKind::Count(0, 10_000_000), "0", "100", Live,
        "Connections of one address, or of one IPv6 network of 64 bits; over it the upgrade gets 429; 0: no limit"),
    key("limits", "upgrades_per_second", ValueKind::Count(0, 1_000_000), "0", "500", Live,
        "Connections that this node accepts per second; over it the upgrade gets 429; 0: no limit"),
    key("limits", "upgrade_timeout", millis(10, 300 * SECOND), "10s", "5s", Live,
        "Time from accepting a connection to the first byte of its first request, and time for the body of a call of `/api/`"),
    key("limits", "sockets_pending_max", ValueKind::Count(1, 1_000_000), "1024", "4096", Live,
        "Sockets of a listener before the upgrade; over it the one that has been silent longest is closed, or else the new one"),
    key("limits", "http_header_bytes_max", ValueKind::Bytes(KIB, MIB), "16KiB", "32KiB", Live,
        "Request line and headers of one request; a longer one gets 431"),
    key("limits", "http_header_time_max", millis(10, 300 * SECOND), "10s", "5s", Live,
        "Time from the first byte of a request to the end of its headers; a slower one gets 408"),
    key("limits", "http_idle_timeout", millis(10, HOUR), "75s", "120s", Live,
        "How long a connection is kept open for the next request"),
    key("limits", "http_write_timeout", millis(10, 300 * SECOND), "10s", "30s", Live,
        "How long a client may read nothing of an answer before the connection is reset"),
    key("limits", "http_requests_per_connection_max", ValueKind::Count(1, 1_000_000), "1000", "100", Live,
        "Requests on one connection; the last one is answered with `Connection: close`"),
    key("limits", "rooms_per_connection_max", ValueKind::Count(0, 100_000), "128", "16", Live,
        "Rooms that one connection may be in"),
    key("limits", "room_name_bytes_max", ValueKind::Bytes(0, 16 * MIB), "8KiB", "16KiB", Live,
        "Bytes of the names of all rooms that one connection may be in"),
    key("limits", "once_time", millis(SECOND, DAY), "2m", "10m", Live,
        "How long the answer to a message with `once`, or to a call with `Idempotency-Key`, is kept for repetitions"),
    key("limits", "history_replay_max", ValueKind::Count(1, 10_000), "300", "100", Live,
        "The most messages of a history that are sent to one client that joins or reads back"),
    key("limits", "history_bytes_max", ValueKind::Bytes(MIB, 64 * GIB), "256MiB", "1GiB", Live,
        "Memory of all histories on the memory broker"),
    key("limits", "plugin_file_bytes_max", ValueKind::Bytes(KIB, GIB), "32MiB", "64MiB", Live,
        "Largest plugin file"),

    key("cloudwatch", "enabled", ValueKind::Bool, "false", "true", Restart,
        "Whether metrics are pushed to CloudWatch"),
    key("cloudwatch", "namespace", ValueKind::Text(checks::cloudwatch_namespace), "wss/metrics", "chat/metrics", Restart,
        "The namespace of the metrics"),
    key("cloudwatch", "region", ValueKind::Text(checks::region), "", "eu-central-1", Restart,
        "The region; empty: the one that the SDK finds (`AWS_REGION`, a profile, the instance)"),
    key("cloudwatch", "endpoint", ValueKind::Text(url_checks::endpoint), "", "https://vpce-1.monitoring.eu-central-1.vpce.amazonaws.com", Restart,
        "The endpoint of CloudWatch, if it is a custom one; empty: `AWS_ENDPOINT_URL`, or else the region's"),
    key("cloudwatch", "interval", millis(SECOND, HOUR), "60s", "30s", Restart,
        "Time between two pushes; each covers the time since the one before"),
    key("cloudwatch", "storage_resolution", ValueKind::Count(1, 60), "60", "1", Restart,
        "The resolution of the values in CloudWatch, in seconds: 60, or 1 for an `interval` under a minute"),

    key("metrics", "prometheus", ValueKind::Bool, "true", "false", Restart,
        "Whether `/metrics` is served"),

    key("demo", "enabled", ValueKind::Bool, "false", "true", Restart,
        "Whether a chat page for trying the server is served at `/demo`; it shows the versions of the plugins to everybody"),
    key("demo", "public", ValueKind::Bool, "false", "true", Restart,
        "Whether that page is also served on an address that is not a loopback"),

    key("tracing", "otlp_endpoint", ValueKind::Text(url_checks::otlp_endpoint), "", "http://127.0.0.1:4318", Restart,
        "The receiver of spans, by OTLP over HTTP, such as `http://collector:4318`; empty: nowhere, and messages are not traced"),
    key("tracing", "sample_ratio", ValueKind::Ratio, "0.01", "0.5", Restart,
        "The share of messages that are traced, from 0 to 1"),
    key("tracing", "traces_per_second", ValueKind::Count(1, 100_000), "100", "10", Restart,
        "The most traces that this node begins in a second, regardless of `sample_ratio`"),

    key("admin", "key", ValueKind::Text(checks::bearer_key), "", "an-admin-key-for-examples", Live,
        "The bearer key of `/admin/`, at least 16 characters; empty: every call answers 401").secret(),
    key("admin", "upload_timeout", millis(10, HOUR), "60s", "5m", Live,
        "How long the upload of a pushed component may take"),

    key("api", "keys", ValueKind::Texts(checks::bearer_key), "", "first-key-for-examples,second-key-for-examples", Live,
        "The bearer keys of `/api/`, each at least 16 characters; empty: every call answers 401").secret(),

    key("plugin_cache", "dir", ValueKind::Text(checks::optional_path), ".signalbox/cache", "/var/cache/signalbox", Restart,
        "The folder for compiled plugins, relative to the folder of this file; empty: they are not kept"),

    key("plugin_versions", "dir", ValueKind::Text(checks::optional_path), ".signalbox/versions", "/var/lib/signalbox/versions", Restart,
        "The folder for versions that were live, relative to the folder of this file; empty: they are not kept, and a restart begins with the plugins' files"),
    key("plugin_versions", "keep", ValueKind::Count(1, 20), "5", "2", Restart,
        "How many earlier versions of each plugin are kept for a rollback"),

    key("plugin_probation", "time", millis(0, HOUR), "30s", "2m", Live,
        "How long a new live version is on probation; 0s: not at all"),
    key("plugin_probation", "calls", ValueKind::Count(1, 1_000_000), "1000", "200", Live,
        "The number of calls after which the probation ends earlier"),
    key("plugin_probation", "failure_percent", ValueKind::Count(1, 100), "5", "20", Live,
        "Traps and deadline misses in a hundred calls above which the server rolls back"),
    key("plugin_probation", "calls_min", ValueKind::Count(1, 1_000_000), "20", "50", Live,
        "The number of calls before the share is judged, at most `calls`"),
    key("plugin_probation", "users_min", ValueKind::Count(2, 1_000), "3", "5", Live,
        "The number of users whose calls must fail before the server rolls back: no single client can cause a rollback"),

    key("plugins", "name", ValueKind::Text(checks::plugin_name), "", "", Live,
        "Unique name, required"),
    key("plugins", "path", ValueKind::Text(checks::path), "", "other.wasm", Live,
        "The component file, relative to the folder of this file, required"),
    key("plugins", "events", ValueKind::Texts(checks::event_pattern), "", "chat_message,game.*", Live,
        "The event types it sees, required: names, prefixes with a final `*`, or `*`"),
    key("plugins", "on_failure", ValueKind::Choice(&["reject", "pass"]), "reject", "pass", Live,
        "The effect of a failed call on its message: the sender gets an `error`, or the message continues as if the plugin did not exist"),
    key("plugins", "instances", ValueKind::Choice(&["pool", "single"]), "pool", "single", Live,
        "Whether any instance serves any call, or one instance serves all calls in order"),
    key("plugins", "instances_max", ValueKind::Count(1, 1_000), "16", "4", Live,
        "The most instances at a time, with `instances = \"pool\"` only"),
    key("plugins", "instances_min", ValueKind::Count(1, 1_000), "2", "1", Live,
        "Instances that are kept ready, at most `instances_max`, with `instances = \"pool\"` only"),
    key("plugins", "instances_idle_time", millis(100, 24 * HOUR), "60s", "5m", Live,
        "Time without a call after which an instance over `instances_min` is stopped"),
    key("plugins", "memory_max", ValueKind::Bytes(64 * KIB, GIB), "64MiB", "16MiB", Live,
        "Linear memory of an instance"),
    key("plugins", "call_cpu_max", millis(1, 10 * SECOND), "10ms", "5ms", Live,
        "CPU time of a call"),
    key("plugins", "call_time_max", millis(1, 60 * SECOND), "50ms", "100ms", Live,
        "Time of a call with its host calls, at least `call_cpu_max`"),
    key("plugins", "compile_time_max", millis(10, HOUR), "120s", "5m", Live,
        "Longest time to compile the component; one that takes longer is refused"),
    key("plugins", "init_time_max", millis(1, 60 * SECOND), "5s", "2s", Live,
        "Time of `init`, and of `self-test`"),
    key("plugins", "actions_max", ValueKind::Count(1, 65_536), "256", "16", Live,
        "Actions that one call may return"),
    key("plugins", "output_bytes_max", ValueKind::Bytes(KIB, 64 * MIB), "1MiB", "64KiB", Live,
        "Bytes that one call may return"),
    key("plugins", "handover_time_max", millis(1, 10 * SECOND), "50ms", "100ms", Live,
        "How long messages may wait while a `single` instance hands its state over; if it takes longer, the swap is cancelled"),
    key("plugins", "handover_bytes_max", ValueKind::Bytes(0, GIB), "4MiB", "64KiB", Live,
        "Bytes of the state that a `single` instance hands over"),
    key("plugins", "store_value_bytes_max", ValueKind::Bytes(1, 16 * MIB), "64KiB", "4KiB", Live,
        "Bytes of one value in the store"),
    key("plugins", "store_key_bytes_max", ValueKind::Bytes(1, 4 * KIB), "512B", "64B", Live,
        "Bytes of one key in the store"),
    key("plugins", "store_calls_max", ValueKind::Count(0, 10_000), "32", "8", Live,
        "Store calls in one call"),
    key("plugins", "store_bytes_max", ValueKind::Bytes(0, 16 * GIB), "64MiB", "1MiB", Live,
        "Bytes of all keys and values in the store"),
    key("plugins", "log_lines_per_second", ValueKind::Count(0, 100_000), "100", "10", Live,
        "Log lines per second; a line is cut at 1 KiB"),
    key("plugins", "rollout", ValueKind::Table, "{}", "{\"mode\":\"canary\",\"percent\":20}", Live,
        "How a new version is tried before it goes live: `{ mode = \"canary\", percent = 5 }` on a share of the users, `{ mode = \"shadow\" }` on copies; `{}`: not at all"),
    key("plugins", "config", ValueKind::Table, "{}", "{\"max_text_chars\":10}", Live,
        "Passed to `init` as JSON text; in the environment it is a JSON object"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_once_in_a_known_section() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(SECTIONS.contains(&key.section), "{}", key.section);
            let same = |other: &&Key| other.section == key.section && other.name == key.name;
            assert_eq!(
                KEYS.iter().position(|other| same(&other)),
                Some(index),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn a_nested_table_is_one_key_of_its_section_and_has_its_own_keys() {
        let outer = names_within("rooms", "");
        let expected = [
            "match",
            "history",
            "join",
            "send",
            "presence",
            "members_max",
        ];
        assert_eq!(outer, expected);
        assert_eq!(names_within("rooms", "history."), ["size", "time"]);
        assert!(names_within("rooms", "match.").is_empty());
        assert!(names_within("limits", "history.").is_empty());
    }
}
