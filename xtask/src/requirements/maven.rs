//! Maven, and a JDK.

use crate::programs::said_version;

use super::debian;

/// The oldest JDK that compiles and runs the Kotlin client.
const JDK_MIN: u32 = 17;

pub(super) fn present() -> anyhow::Result<bool> {
    let javac = said_version("javac", "-version");
    let is_new_enough = javac
        .as_deref()
        .and_then(major)
        .is_some_and(|major| major >= JDK_MIN);
    Ok(is_new_enough && said_version("mvn", "--version").is_some())
}

pub(super) fn install() -> anyhow::Result<()> {
    debian::install(&["maven", "default-jdk-headless"])
}

/// The major version in `javac 17.0.15`.
fn major(output: &str) -> Option<u32> {
    let version = output.strip_prefix("javac ")?;
    version.split(['.', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_jdk_is_read() {
        for (output, expected) in [
            ("javac 17.0.15", Some(17)),
            ("javac 21", Some(21)),
            ("javac 26-ea", Some(26)),
            ("javac 1.8.0_302", Some(1)),
            ("something else", None),
        ] {
            assert_eq!(major(output), expected, "{output}");
        }
    }
}
