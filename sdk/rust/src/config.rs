//! The plugin's configuration as a Rust value.

use serde::Deserialize;

/// Parses the `config` of a plugin. Use `deny_unknown_fields` on the type to catch misspelled keys.
///
/// # Errors
/// Returns a text for the operator that says what is wrong and at which position.
pub fn parse<'c, T: Deserialize<'c>>(config: &'c str) -> Result<T, String> {
    let config = if config.trim().is_empty() {
        "{}"
    } else {
        config
    };
    serde_json::from_str(config).map_err(|error| format!("config: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        size: u32,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { size: 7 }
        }
    }

    #[test]
    fn an_empty_configuration_is_the_default_and_a_wrong_key_is_named() {
        assert_eq!(parse::<Config>(""), Ok(Config { size: 7 }));
        assert!(parse::<Config>(r#"{"siez":1}"#).is_err_and(|error| error.contains("siez")));
    }
}
