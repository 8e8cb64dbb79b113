//! Takes the place of `broker.kind = "redis"` in a build without the feature `redis`.

use std::sync::Arc;

use signalbox_config::RedisConfig;

use super::BrokerKind;
use crate::app::StartError;

pub(super) fn configured(_: &RedisConfig) -> Result<Arc<dyn BrokerKind>, StartError> {
    Err(StartError::NotBuiltIn {
        key: "broker.kind",
        feature: "redis",
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use signalbox_config::{BrokerConfig, Config};

    use super::*;

    #[test]
    fn a_build_without_redis_names_the_missing_feature() {
        let text = "[broker]\nkind = \"redis\"\n";
        let config = Config::parse(text, Path::new("platform.toml"), &Default::default());
        let Ok(BrokerConfig::Redis(config)) = config.map(|config| config.broker) else {
            panic!("the configuration is valid");
        };
        let error = configured(&config).err().map(|error| error.to_string());
        let expected =
            "broker.kind needs a build with the cargo feature `redis`, and this one is without it";
        assert_eq!(error.as_deref(), Some(expected));
    }
}
