//! Assembles settings into a [`Config`], and checks dependencies between keys.

use std::{net::SocketAddr, path::Path};

use ipnet::IpNet;
use signalbox_protocol::event_type::Patterns;

use super::{
    AdminConfig, AllowedOrigins, ApiConfig, AuthConfig, BrokerConfig, CloudWatchConfig, Config,
    ConfigError, DemoConfig, EventsConfig, HttpLimits, JwtConfig, JwtKeySource, Limits,
    MetricsConfig, PluginVersionsConfig, PresenceConfig, ProbationConfig, RedisCompat, RedisConfig,
    RedisMode, ServerConfig, Shown, StorageResolution, TokenTimes, TracingConfig, advice, checks,
    http,
    live::Resolved,
    plugins, rooms,
    settings::{Section, Settings},
    units, url_checks, webhooks,
};

/// Minimum length of the secret of an HMAC-SHA256 in bytes: as long as the hash (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Assembles the settings. The result is only meaningful if nothing was added to `errors`.
pub(super) fn assemble(
    settings: &Settings,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) -> Config {
    let section = |name| {
        settings
            .sections
            .get(name)
            .unwrap_or_else(|| unreachable!("[{name}] is missing from the sections"))
    };
    let server = server(section("server"), errors);
    Config {
        auth: auth(
            section("auth"),
            section("server"),
            server.listen,
            folder,
            errors,
        ),
        token_times: TokenTimes {
            grace: section("auth").time("grace"),
            revocation_max: section("auth").time("revocation_time_max"),
        },
        demo: DemoConfig {
            enabled: section("demo").bool("enabled"),
            public: section("demo").bool("public"),
        },
        server,
        broker: broker(section("broker"), section("redis"), folder, errors),
        events: EventsConfig {
            // Each was checked when it was read.
            client: Patterns::parse(&section("events").texts("client")).unwrap_or_default(),
        },
        rooms: rooms::assemble(&settings.rooms, section("auth"), errors),
        users: rooms::users(section("users"), errors),
        presence: presence(section("presence")),
        webhooks: webhooks::assemble(&settings.webhooks, errors),
        limits: limits(section("limits")),
        cloudwatch: cloudwatch(section("cloudwatch"), errors),
        metrics: MetricsConfig {
            prometheus: section("metrics").bool("prometheus"),
        },
        tracing: tracing(section("tracing")),
        admin: AdminConfig {
            key: section("admin").optional("key"),
            upload_timeout: section("admin").time("upload_timeout"),
        },
        api: ApiConfig {
            keys: section("api").texts("keys"),
        },
        plugin_cache_dir: section("plugin_cache")
            .optional("dir")
            .map(|dir| folder.join(dir)),
        plugin_versions: PluginVersionsConfig {
            dir: section("plugin_versions")
                .optional("dir")
                .map(|dir| folder.join(dir)),
            keep: section("plugin_versions").count("keep") as usize,
        },
        plugin_probation: probation(section("plugin_probation"), errors),
        plugins: plugins::assemble(&settings.plugins, folder, errors),
        secret_files: settings.secret_files.clone(),
        advice: advice::of(settings),
        shown: Shown::of(settings),
        resolved: Resolved::of(settings),
    }
}

fn probation(section: &Section, errors: &mut Vec<ConfigError>) -> ProbationConfig {
    let (calls, calls_min) = (section.count("calls"), section.count("calls_min"));
    if section.are_right(&["calls", "calls_min"]) && calls_min > calls {
        let message = format!(
            "is {calls_min}, more than plugin_probation.calls, {calls}, so that the probation would end before \
             anything is judged; lower it, or raise the other"
        );
        errors.push(ConfigError {
            key: format!("{}.calls_min", section.path),
            ..section.error(&["calls_min", "calls"], message)
        });
    }
    ProbationConfig {
        time: section.time("time"),
        calls: calls.into(),
        failure_percent: section.count("failure_percent"),
        calls_min: calls_min.into(),
        users_min: section.count("users_min") as usize,
    }
}

fn cloudwatch(section: &Section, errors: &mut Vec<ConfigError>) -> Option<CloudWatchConfig> {
    let resolution = section.count("storage_resolution");
    if section.are_right(&["storage_resolution"]) && ![1, 60].contains(&resolution) {
        errors.push(section.error(
            &["storage_resolution"],
            format!("is {resolution}, and CloudWatch accepts 1 and 60; set one of them"),
        ));
    }
    section.bool("enabled").then(|| CloudWatchConfig {
        namespace: section.text("namespace"),
        region: section.optional("region"),
        endpoint: section.optional("endpoint"),
        interval: section.time("interval"),
        storage_resolution: match resolution {
            1 => StorageResolution::Second,
            _ => StorageResolution::Minute,
        },
    })
}

fn broker(
    section: &Section,
    redis: &Section,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) -> BrokerConfig {
    let urls: Vec<String> = url_checks::split_redis_urls(&redis.text("url"))
        .map(str::to_owned)
        .collect();
    let is_known = redis.are_right(&["url", "ca_file"]);
    if is_known
        && redis.optional("ca_file").is_some()
        && !urls.iter().all(|url| url_checks::is_tls(url))
    {
        errors.push(redis.error(
            &["ca_file"],
            "is for TLS, and redis.url has an address without it; write rediss:// there",
        ));
    }
    if section.text("kind") == "memory" {
        return BrokerConfig::Memory;
    }
    BrokerConfig::Redis(RedisConfig {
        urls,
        mode: match redis.text("mode").as_str() {
            "single" => RedisMode::Single,
            "cluster" => RedisMode::Cluster,
            "sentinel" => RedisMode::Sentinel,
            _ => RedisMode::Auto,
        },
        sentinel_master: redis.optional("sentinel_master"),
        ca_file: redis.optional("ca_file").map(|file| folder.join(file)),
        compat: match redis.text("compat").as_str() {
            "websocket-app" => RedisCompat::WebsocketApp,
            _ => RedisCompat::None,
        },
        key_prefix: redis.text("key_prefix"),
        command_timeout: redis.time("command_timeout"),
    })
}

fn server(section: &Section, errors: &mut Vec<ConfigError>) -> ServerConfig {
    let (ping, idle) = (section.time("ping_interval"), section.time("idle_timeout"));
    if section.are_right(&["ping_interval", "idle_timeout"]) && idle <= ping {
        let message = format!(
            "{} is not longer than server.ping_interval, {}, so that a client would be dropped \
             before it was asked; set it to twice that or more",
            units::format_duration(idle),
            units::format_duration(ping)
        );
        errors.push(ConfigError {
            key: "server.idle_timeout".to_owned(),
            ..section.error(&["idle_timeout", "ping_interval"], message)
        });
    }
    ServerConfig {
        listen: section.address("listen"),
        node_id: section.optional("node_id").unwrap_or_else(host_name),
        drain_timeout: section.time("drain_timeout"),
        ping_interval: ping,
        idle_timeout: idle,
        allowed_origins: allowed_origins(section, errors),
        allowed_hosts: lower(section.texts("allowed_hosts")),
        websocket_path: section.text("websocket_path"),
        sse: section.bool("sse"),
        internal_listen: internal_listen(section, errors),
        trusted_proxies: trusted_proxies(section, errors),
        proxy_protocol: section.text("proxy_protocol") == "on",
        trace_plugins: section.bool("trace_plugins"),
    }
}

fn lower(texts: Vec<String>) -> Vec<String> {
    let lower = texts.iter().map(|text| text.to_ascii_lowercase());
    lower.collect()
}

fn internal_listen(section: &Section, errors: &mut Vec<ConfigError>) -> Option<SocketAddr> {
    let address = section.optional("internal_listen")?.parse().ok();
    if section.are_right(&["listen", "internal_listen"])
        && address == Some(section.address("listen"))
    {
        errors.push(section.error(
            &["internal_listen"],
            "is the address of server.listen, and must differ from it; write another port",
        ));
    }
    address
}

fn trusted_proxies(section: &Section, errors: &mut Vec<ConfigError>) -> Vec<IpNet> {
    let texts = section.texts("trusted_proxies");
    let is_on = section.text("proxy_protocol") == "on";
    if section.are_right(&["trusted_proxies", "proxy_protocol"]) && is_on && texts.is_empty() {
        errors.push(section.error(
            &["proxy_protocol"],
            "needs server.trusted_proxies: name the balancers that send its header, such as [\"10.0.0.0/8\"]",
        ));
    }
    let networks = texts.iter().filter_map(|text| http::parse_network(text));
    networks.collect()
}

fn allowed_origins(section: &Section, errors: &mut Vec<ConfigError>) -> AllowedOrigins {
    let origins = section.texts("allowed_origins");
    match origins.as_slice() {
        [] => AllowedOrigins::SameHost,
        [any] if any == "*" => AllowedOrigins::Any,
        several => {
            if several.iter().any(|origin| origin == "*") {
                errors.push(section.error(
                    &["allowed_origins"],
                    "\"*\" lets every page in, so the others have no effect; write \"*\" alone or leave it out",
                ));
            }
            let normal = several
                .iter()
                .filter_map(|origin| http::allowed_origin(origin).ok());
            AllowedOrigins::List(normal.collect())
        }
    }
}

fn auth(
    section: &Section,
    server: &Section,
    listen: SocketAddr,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) -> AuthConfig {
    let allow_insecure = section.bool("allow_insecure");
    if section.text("mode") == "none" {
        let is_known =
            section.are_right(&["mode", "allow_insecure"]) && server.are_right(&["listen"]);
        if is_known && !allow_insecure && !listen.ip().is_loopback() {
            errors.push(server.error(
                &["listen"],
                format!(
                    "{listen} can be reached from other machines, and with auth.mode = \"none\" clients choose their \
                     own user ID; set auth.mode = \"jwt\" with a key, or auth.allow_insecure = true if a gateway in \
                     front of the server authenticates clients"
                ),
            ));
        }
        return AuthConfig::None { allow_insecure };
    }
    match key_source(section, folder, errors) {
        Some(keys) => AuthConfig::Jwt(JwtConfig {
            keys,
            issuer: section.optional("jwt_issuer"),
            audience: section.optional("jwt_audience"),
        }),
        None => AuthConfig::None { allow_insecure },
    }
}

/// The one key source that mode `jwt` needs.
fn key_source(
    section: &Section,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) -> Option<JwtKeySource> {
    const SOURCES: [&str; 4] = ["jwt_secret", "jwt_key_file", "jwks_file", "jwks_url"];
    let previous = section.optional("jwt_secret_previous");
    if !section.are_right(&SOURCES) || !section.are_right(&["jwt_secret_previous"]) {
        return None;
    }
    let set: Vec<(&str, String)> = SOURCES
        .iter()
        .filter_map(|name| Some((*name, section.optional(name)?)))
        .collect();
    if previous.is_some() && !set.iter().any(|(name, _)| *name == "jwt_secret") {
        errors.push(section.error(
            &["jwt_secret_previous"],
            "is the secret before auth.jwt_secret, which is not set; set that, or remove this",
        ));
    }
    match set.as_slice() {
        [("jwt_secret", secret)] => {
            long_enough(section, "jwt_secret", secret, errors);
            if let Some(previous) = &previous {
                long_enough(section, "jwt_secret_previous", previous, errors);
            }
            Some(JwtKeySource::Secrets {
                current: secret.clone(),
                previous,
            })
        }
        [("jwt_key_file", file)] => Some(JwtKeySource::PemFile(folder.join(file))),
        [("jwks_file", file)] => Some(JwtKeySource::JwksFile(folder.join(file))),
        [(_, url)] => Some(JwtKeySource::JwksUrl {
            url: url.clone(),
            refresh_interval: section.time("jwks_refresh_interval"),
        }),
        [] => {
            errors.push(section.error(
                &["mode"],
                "\"jwt\" needs a key; set one of auth.jwt_secret (or JWT_SECRET), auth.jwt_key_file, auth.jwks_file, \
                 auth.jwks_url",
            ));
            None
        }
        [(first, _), rest @ ..] => {
            for (name, _) in rest {
                errors.push(section.error(
                    &[name],
                    format!("is a second key source in addition to auth.{first}; keep one of them"),
                ));
            }
            None
        }
    }
}

fn long_enough(section: &Section, name: &str, secret: &str, errors: &mut Vec<ConfigError>) {
    if secret.len() < SECRET_BYTES_MIN {
        errors.push(section.error(
            &[name],
            format!(
                "is {} bytes long, and HS256 needs {SECRET_BYTES_MIN} or more (RFC 7518, section 3.2); make one with: \
                 openssl rand -hex 32",
                secret.len()
            ),
        ));
    }
}

fn tracing(section: &Section) -> Option<TracingConfig> {
    Some(TracingConfig {
        otlp_endpoint: section.optional("otlp_endpoint")?,
        sample_ratio: section.ratio("sample_ratio"),
        traces_per_second: section.count("traces_per_second"),
    })
}

fn presence(section: &Section) -> PresenceConfig {
    PresenceConfig {
        grace: section.time("grace"),
        flush: section.time("flush"),
        members_max: section.count("members_max") as usize,
    }
}

fn limits(section: &Section) -> Limits {
    Limits {
        frame_bytes_max: section.bytes("frame_bytes_max"),
        outbox_bytes_max: section.bytes("outbox_bytes_max"),
        messages_per_second: section.count("messages_per_second"),
        messages_burst: section.count("messages_burst"),
        message_time_max: section.time("message_time_max"),
        control_frames_per_second: section.count("control_frames_per_second"),
        unfinished_bytes_max: section.bytes("unfinished_bytes_max"),
        connections_per_user_max: section.count("connections_per_user_max") as usize,
        connections_max: section.count("connections_max") as usize,
        connections_per_address_max: section.count("connections_per_address_max") as usize,
        upgrades_per_second: section.count("upgrades_per_second"),
        upgrade_timeout: section.time("upgrade_timeout"),
        http: HttpLimits {
            sockets_pending_max: section.count("sockets_pending_max") as usize,
            header_bytes_max: section.bytes("http_header_bytes_max"),
            header_time_max: section.time("http_header_time_max"),
            idle_timeout: section.time("http_idle_timeout"),
            write_timeout: section.time("http_write_timeout"),
            requests_per_connection_max: section.count("http_requests_per_connection_max"),
        },
        rooms_per_connection_max: section.count("rooms_per_connection_max") as usize,
        room_name_bytes_max: section.bytes("room_name_bytes_max"),
        once_time: section.time("once_time"),
        history_replay_max: section.count("history_replay_max") as usize,
        history_bytes_max: section.bytes("history_bytes_max"),
        plugin_file_bytes_max: section.bytes("plugin_file_bytes_max"),
    }
}

/// The host name of this machine as a node name: characters that are not allowed become `-`.
fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let legal = |c: char| {
        if checks::node_id(c.encode_utf8(&mut [0; 4])).is_ok() {
            c
        } else {
            '-'
        }
    };
    let name: String = name.chars().take(64).map(legal).collect();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name
    }
}
