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
