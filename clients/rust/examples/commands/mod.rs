//! The commands that `cargo xtask test --clients` gives to the examples.

use std::io::BufRead;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// Returns the commands. A thread reads them from the standard input, which has no asynchronous form without one.
pub(crate) fn lines<T: DeserializeOwned + Send + 'static>() -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(line) => {
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
                Err(error) => eprintln!("{line} is no command: {error}"),
            }
        }
    });
    receiver
}
