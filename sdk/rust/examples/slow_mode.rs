//! Slow mode: each user may send only one message in an interval. Messages are counted in the server's store, so the
//! limit holds across all nodes.
//!
//! `cargo build --release --target wasm32-wasip2 --example slow_mode` builds
//! `target/wasm32-wasip2/release/examples/slow_mode.wasm`.

use serde::Deserialize;
use signalbox_plugin::{Message, Plugin, Rejection, Validation, config, export, log, store};

/// The plugin. Its only state is its configuration: `config = { seconds = 5 }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowMode {
    seconds: u32,
}

impl Plugin for SlowMode {
    fn init(config: &str) -> Result<Self, String> {
        config::parse(config)
    }
}

impl Validation for SlowMode {
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        // The key, and with it the count, expires after the interval.
        let key = format!("sent:{}", message.sender);
        match store::increment(&key, 1, Some(self.seconds)) {
            Ok(1) => Ok(()),
            Ok(_) => {
                let reason = format!("wait {} seconds between messages", self.seconds);
                Err(Rejection::new("slow_mode", reason))
            }
            // If the store is unavailable, let messages pass instead of blocking all of them.
            Err(error) => {
                log::write(log::Level::Warn, &format!("nothing is counted: {error:?}"));
                Ok(())
            }
        }
    }
}

export!(SlowMode: validation);

#[cfg(test)]
mod tests {
    use super::*;
    use signalbox_plugin::testing;

    #[test]
    fn the_second_message_must_wait() {
        let plugin = SlowMode::init(r#"{"seconds":5}"#).expect("it is right");
        let message = testing::message("chat_message", r#"{"text":"hello"}"#);
        assert!(plugin.validate(&message).is_ok());
        let refused = plugin.validate(&message).expect_err("it is too early");
        assert_eq!(refused.code, "slow_mode");
    }
}
