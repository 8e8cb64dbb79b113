//! What of a changed configuration needs a restart.

use super::{
    AuthConfig, BrokerConfig, CloudWatchConfig, Config, JwtConfig, JwtKeySource, RedisConfig,
    TracingConfig,
};

/// The keys that differ between two configurations and take effect only with the next start. Everything else,
/// plugins and limits before all, is taken over while the server runs.
pub fn cannot_change_live(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut differs = |key, differs: bool| {
        if differs {
            keys.push(key);
        }
    };
    differs("server.listen", old.server.listen != new.server.listen);
    differs(
        "server.internal_listen",
        old.server.internal_listen != new.server.internal_listen,
    );
    differs(
        "server.websocket_path",
        old.server.websocket_path != new.server.websocket_path,
    );
    differs("server.node_id", old.server.node_id != new.server.node_id);
    broker(&old.broker, &new.broker, &mut differs);
    cloudwatch(&old.cloudwatch, &new.cloudwatch, &mut differs);
    differs("metrics.prometheus", old.metrics != new.metrics);
    differs("demo.enabled", old.demo.enabled != new.demo.enabled);
    differs("demo.public", old.demo.public != new.demo.public);
    tracing(old.tracing.as_ref(), new.tracing.as_ref(), &mut differs);
    differs(
        "plugin_cache.dir",
        old.plugin_cache_dir != new.plugin_cache_dir,
    );
    differs(
        "plugin_versions.dir",
        old.plugin_versions.dir != new.plugin_versions.dir,
    );
    differs(
        "plugin_versions.keep",
        old.plugin_versions.keep != new.plugin_versions.keep,
    );
    auth(&old.auth, &new.auth, &mut differs);
    keys
}

fn tracing(
    old: Option<&TracingConfig>,
    new: Option<&TracingConfig>,
    differs: &mut impl FnMut(&'static str, bool),
) {
    let (Some(old), Some(new)) = (old, new) else {
        return differs("tracing.otlp_endpoint", old.is_some() != new.is_some());
    };
    differs(
        "tracing.otlp_endpoint",
        old.otlp_endpoint != new.otlp_endpoint,
    );
    differs("tracing.sample_ratio", old.sample_ratio != new.sample_ratio);
    differs(
        "tracing.traces_per_second",
        old.traces_per_second != new.traces_per_second,
    );
}

fn broker(old: &BrokerConfig, new: &BrokerConfig, differs: &mut impl FnMut(&'static str, bool)) {
    match (old, new) {
        (BrokerConfig::Memory, BrokerConfig::Memory) => {}
        (BrokerConfig::Redis(old), BrokerConfig::Redis(new)) => redis(old, new, differs),
        _ => differs("broker.kind", true),
    }
}

fn redis(old: &RedisConfig, new: &RedisConfig, differs: &mut impl FnMut(&'static str, bool)) {
    differs("redis.url", old.urls != new.urls);
    differs("redis.mode", old.mode != new.mode);
    differs(
        "redis.sentinel_master",
        old.sentinel_master != new.sentinel_master,
    );
    differs("redis.ca_file", old.ca_file != new.ca_file);
    differs("redis.compat", old.compat != new.compat);
    differs("redis.key_prefix", old.key_prefix != new.key_prefix);
    differs(
        "redis.command_timeout",
        old.command_timeout != new.command_timeout,
    );
}

fn cloudwatch(
    old: &Option<CloudWatchConfig>,
    new: &Option<CloudWatchConfig>,
    differs: &mut impl FnMut(&'static str, bool),
) {
    let (Some(old), Some(new)) = (old, new) else {
        return differs("cloudwatch.enabled", old.is_some() != new.is_some());
    };
    differs("cloudwatch.namespace", old.namespace != new.namespace);
    differs("cloudwatch.region", old.region != new.region);
    differs("cloudwatch.endpoint", old.endpoint != new.endpoint);
    differs("cloudwatch.interval", old.interval != new.interval);
    differs(
        "cloudwatch.storage_resolution",
        old.storage_resolution != new.storage_resolution,
    );
}

fn auth(old: &AuthConfig, new: &AuthConfig, differs: &mut impl FnMut(&'static str, bool)) {
    match (old, new) {
        (
            AuthConfig::None {
                allow_insecure: old,
            },
            AuthConfig::None {
                allow_insecure: new,
            },
        ) => {
            differs("auth.allow_insecure", old != new);
        }
        (AuthConfig::Jwt(old), AuthConfig::Jwt(new)) => jwt(old, new, differs),
        _ => differs("auth.mode", true),
    }
}

fn jwt(old: &JwtConfig, new: &JwtConfig, differs: &mut impl FnMut(&'static str, bool)) {
    let (old_source, new_source) = (source(&old.keys), source(&new.keys));
    differs(new_source, old.keys != new.keys);
    differs(old_source, old_source != new_source);
    differs("auth.jwt_issuer", old.issuer != new.issuer);
    differs("auth.jwt_audience", old.audience != new.audience);
}

fn source(keys: &JwtKeySource) -> &'static str {
    match keys {
        JwtKeySource::Secret(_) => "auth.jwt_secret",
        JwtKeySource::PemFile(_) => "auth.jwt_key_file",
        JwtKeySource::JwksFile(_) => "auth.jwks_file",
    }
}
