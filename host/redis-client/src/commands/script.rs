//! Scripts that run inside Redis, each as one atomic command.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, ErrorKind, FromRedisValue, ServerErrorKind, Value};
use tokio::time::timeout;

use super::{Commands, Unavailable, late, read};

/// A Lua script, and the name by which a server that has seen it knows it.
#[derive(Debug)]
pub struct Script {
    code: &'static str,
    name: String,
}

impl Script {
    /// Creates the script `code`. Its text is sent only to a server that does not know it yet, and otherwise only its
    /// name.
    pub fn new(code: &'static str) -> Self {
        let mut name = String::with_capacity(40);
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, code.as_bytes()).as_ref() {
            // Writing into a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        Self { code, name }
    }

    fn call(&self, by_name: bool, keys: &[String], args: &[&[u8]]) -> Cmd {
        let (word, script) = if by_name {
            ("EVALSHA", self.name.as_str())
        } else {
            ("EVAL", self.code)
        };
        let mut command = redis::cmd(word);
        command.arg(script).arg(keys.len()).arg(keys).arg(args);
        command
    }
}

impl Commands {
    /// How long a command may take.
    pub fn timeout(&self) -> std::time::Duration {
        self.shared.timeout
    }

    /// Runs `script` once or not at all. In a cluster all of `keys` must be in one slot.
    ///
    /// # Errors
    /// Returns [`Unavailable`], at the latest after the command timeout, or if the script failed; it may have been
    /// carried out nevertheless.
    pub async fn run_script<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<T, Unavailable> {
        let live = self.shared.live()?;
        let answer = async {
            let by_name = live.link.run_once(&script.call(true, keys, args)).await;
            match by_name.and_then(Value::extract_error) {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    live.link.run_once(&script.call(false, keys, args)).await
                }
                answer => answer,
            }
        };
        let answer = timeout(self.shared.timeout, answer).await;
        read(live.conclude(answer.unwrap_or_else(|_| Err(late())))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_as_redis_names_it() {
        assert_eq!(
            Script::new("return 1").name,
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }
}
