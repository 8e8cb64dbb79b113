//! The cargo features that a configuration needs. A broker that this build is without is refused by
//! [`broker_kind`](super::broker_kind).

use signalbox_config::Config;

use super::StartError;

/// Checks that this build has everything that the configuration asks for, apart from a broker.
///
/// # Errors
/// Returns [`StartError::NotBuiltIn`] if it does not.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    let needed = [
        (
            config.cloudwatch.is_some(),
            cfg!(feature = "cloudwatch"),
            "cloudwatch.enabled",
            "cloudwatch",
        ),
        (
            config.tracing.is_some(),
            cfg!(feature = "otlp"),
            "tracing.otlp_endpoint",
            "otlp",
        ),
    ];
    for (is_configured, is_built_in, key, feature) in needed {
        if is_configured && !is_built_in {
            return Err(StartError::NotBuiltIn { key, feature });
        }
    }
    Ok(())
}
