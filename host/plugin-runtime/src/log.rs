//! Lines of a plugin in the server's log: with its name and version, limited in length and rate.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use signalbox_telemetry::metrics::PluginMetrics;
use tracing::{debug, error, info, warn};

/// The longest line, in bytes; the rest is cut off.
const LINE_BYTES_MAX: usize = 1024;

/// The severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// The log of one plugin version, shared by its instances.
#[derive(Debug)]
pub(super) struct PluginLog {
    plugin: String,
    version: String,
    lines_per_second: u32,
    window: Mutex<Window>,
    metrics: Arc<PluginMetrics>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl PluginLog {
    pub(super) fn new(
        plugin: &str,
        version: &str,
        lines_per_second: u32,
        metrics: Arc<PluginMetrics>,
    ) -> Self {
        let window = Mutex::new(Window {
            since: Instant::now(),
            lines: 0,
            dropped: 0,
        });
        Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            lines_per_second,
            window,
            metrics,
        }
    }

    /// Writes `line`, unless this second's lines are used up. The next written line reports the number of dropped ones.
    /// `connection` is the connection that the line was written for, if any.
    pub(super) fn write(&self, level: Level, connection: Option<&str>, line: &str) {
        let Some(left_out) = self.admit(Instant::now()) else {
            self.metrics.log_lines_dropped.increment();
            return;
        };
        self.confess(left_out);
        let (plugin, version) = (&self.plugin, &self.version);
        let line = clean(line);
        match level {
            Level::Debug => {
                debug!(target: "signalbox::plugin", plugin, version, connection, "{line}");
            }
            Level::Info => {
                info!(target: "signalbox::plugin", plugin, version, connection, "{line}")
            }
            Level::Warn => {
                warn!(target: "signalbox::plugin", plugin, version, connection, "{line}")
            }
            Level::Error => {
                error!(target: "signalbox::plugin", plugin, version, connection, "{line}");
            }
        }
    }

    /// Writes one of the host's own lines about the plugin, under the same limit: a plugin that fails on every message
    /// must not fill the log.
    pub(super) fn write_host(&self, write: impl FnOnce()) {
        match self.admit(Instant::now()) {
            Some(left_out) => {
                self.confess(left_out);
                write();
            }
            None => self.metrics.log_lines_dropped.increment(),
        }
    }

    /// Reports the number of dropped lines, if any.
    fn confess(&self, left_out: u64) {
        if left_out > 0 {
            let (plugin, version) = (&self.plugin, &self.version);
            warn!(target: "signalbox::plugin", plugin, version, "... and {left_out} more lines of this plugin, left out");
        }
    }

    /// Returns `None` if the line exceeds the limit, otherwise the number of lines dropped before it.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left_out = 0;
        if now.duration_since(window.since) >= Duration::from_secs(1) {
            left_out = window.dropped;
            *window = Window {
                since: now,
                lines: 0,
                dropped: 0,
            };
        }
        if window.lines >= self.lines_per_second {
            window.dropped += 1;
            return None;
        }
        window.lines += 1;
        Some(left_out)
    }
}

/// Turns a guest's text into part of one line: it is cut at the limit, trailing whitespace is removed, and control
/// characters become spaces.
pub(super) fn clean(line: &str) -> String {
    one_line(line, LINE_BYTES_MAX)
}

/// Like [`clean`], with another limit in bytes.
pub(super) fn one_line(line: &str, bytes_max: usize) -> String {
    let end = line.floor_char_boundary(bytes_max);
    let mut text: String = line[..end]
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if end < line.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_limit_are_left_out_and_counted() {
        let metrics = Arc::<PluginMetrics>::default();
        let log = PluginLog::new("p", "v", 3, metrics.clone());
        (0..10).for_each(|_| log.write(Level::Info, None, "x"));
        assert_eq!(metrics.log_lines_dropped.get(), 7);
        let later = Instant::now() + Duration::from_secs(1);
        assert_eq!(log.admit(later), Some(7));
        assert_eq!(log.admit(later), Some(0));
    }

    #[test]
    fn long_lines_are_cut_between_characters_and_cannot_forge_others() {
        assert_eq!(clean(&"ä".repeat(600)).len(), 1024 + '…'.len_utf8());
        assert_eq!(clean("a\nERROR b\r\n"), "a ERROR b");
    }
}
