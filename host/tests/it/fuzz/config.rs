//! Configurations.

use std::path::Path;

use proptest::prelude::*;
use signalbox::config::{Config, Environment};

use super::{Target, fuzz};

const TARGET: Target = Target {
    name: "config",
    words: &[
        "\n",
        "=",
        "[",
        "]",
        "[[",
        "]]",
        "\"",
        "'",
        "\"\"\"",
        "#",
        ".",
        ",",
        "{",
        "}",
        "\\",
        "\\u0000",
        "\\U0001F600",
        "\0",
        "\u{feff}",
        "true",
        "0",
        "-1",
        "1e400",
        "99999999999999999999",
        "0x7fffffffffffffff",
        "nan",
        "1979-05-27",
        "\"1s\"",
        "\"0ns\"",
        "\"99999999999h\"",
        "\"64 KiB\"",
        "\"99999999 TiB\"",
        "\"-1 KiB\"",
        "\"*\"",
        "\"a*b\"",
        "\"../../etc/passwd\"",
        "\"redis://\"",
        "\"redis+sentinel://a/b\"",
        "\"[::1]:0\"",
        "\"localhost:99999\"",
        "[server]\n",
        "[limits]\n",
        "[auth]\n",
        "[redis]\n",
        "[[plugins]]\n",
        "[api]\n",
        "[admin]\n",
        "[tracing]\n",
        "#env SIGNALBOX_",
        "__",
        "WSS_PORT=",
    ],
};

/// The start of a seed line that sets an environment variable.
const VARIABLE: &str = "#env ";

#[test]
fn any_configuration_is_read_or_all_its_errors_are_reported() {
    let origin = Path::new("platform.toml");
    fuzz(&TARGET, |input| {
        let text = input.text();
        let env = environment(&text);
        match (
            Config::parse(&text, origin, &env),
            Config::parse(&text, origin, &env),
        ) {
            (Ok(one), Ok(other)) => prop_assert_eq!(one, other),
            (Err(errors), Err(again)) => {
                prop_assert!(!errors.errors().is_empty());
                prop_assert_eq!(errors.to_string(), again.to_string());
            }
            (one, other) => prop_assert!(false, "{:?}, then {:?}", one, other),
        }
        Ok(())
    });
}

fn environment(text: &str) -> Environment {
    text.lines()
        .filter_map(|line| line.strip_prefix(VARIABLE)?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
