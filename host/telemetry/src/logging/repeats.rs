//! Drops and counts lines that repeat, separately for each place in the code.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    error,
    field::{Field, Visit},
    info, warn,
};
use tracing_subscriber::{Layer, layer::Context};

/// The burst of a place in the code: the total cost of the lines that it may write at once.
const SAVED_MAX: Duration = Duration::from_secs(100);

/// The cost of a line: one may be written per second, and a hundred at once.
const COST: Duration = Duration::from_secs(1);

/// The cost of a line that repeats the previous one from this place: five may be written at once.
const COST_OF_THE_SAME: Duration = Duration::from_secs(20);

/// Maximum number of tracked places. The code has fewer; a line for each plugin may add more.
const CALL_SITES_MAX: usize = 4_096;

/// Maximum length of the example of a dropped line, in bytes.
const EXAMPLE_BYTES_MAX: usize = 200;

/// The target of the lines that report dropped lines.
pub(super) const OWN_TARGET: &str = "signalbox::log";

/// Targets whose lines are never dropped: output of plugins, and audit lines. Both have their own limits.
const UNLIMITED: [&str; 3] = ["signalbox::plugin", "signalbox::audit", OWN_TARGET];

/// Decides which lines of `info` and above are written.
///
/// Lines are distinguished by the place in the code that they come from, and by the plugin that they are about. A place
/// may write a hundred lines at once and one per second after that; for identical lines, the limits are five and one
/// per 20 s. Lines of `debug` and below are not limited: an operator who enables them wants all of them.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<LineKind, CallSite>>);

/// A place in the code, and a hash of the plugin's name; 0 for no plugin.
type LineKind = (Identifier, u64);

#[derive(Debug)]
struct CallSite {
    metadata: &'static Metadata<'static>,
    /// When the cost of all its lines is paid.
    paid_at: Instant,
    /// A hash of its last line.
    said: u64,
    left_out: u64,
    example: String,
}

/// Lines of one place that were dropped.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    level: Level,
    from: &'static str,
    count: u64,
    example: String,
}

impl Repeats {
    /// Returns a layer of a subscriber; it withholds dropped lines from all other layers.
    pub fn layer<S: Subscriber>(self: Arc<Self>) -> impl Layer<S> {
        Limit(self)
    }

    /// Reports the lines that were dropped since the last call.
    pub fn tell(&self) {
        // The lock is released before the lines are written, because they come through here too.
        for LeftOut {
            level,
            from,
            count,
            example,
        } in self.left_out()
        {
            match level {
                Level::ERROR => {
                    error!(target: OWN_TARGET, count, from, "... and {count} more: {example}");
                }
                Level::WARN => {
                    warn!(target: OWN_TARGET, count, from, "... and {count} more: {example}");
                }
                _ => info!(target: OWN_TARGET, count, from, "... and {count} more: {example}"),
            }
        }
    }

    fn left_out(&self) -> Vec<LeftOut> {
        let mut call_sites = self.call_sites();
        let silenced = call_sites
            .values_mut()
            .filter(|call_site| call_site.left_out > 0);
        silenced
            .map(|call_site| LeftOut {
                level: *call_site.metadata.level(),
                from: call_site.metadata.target(),
                count: std::mem::take(&mut call_site.left_out),
                example: std::mem::take(&mut call_site.example),
            })
            .collect()
    }

    /// Whether a line from `metadata` with the content `line` is written.
    fn admit(&self, metadata: &'static Metadata<'static>, line: Line, now: Instant) -> bool {
        let mut call_sites = self.call_sites();
        let kind = (metadata.callsite(), line.plugin);
        if call_sites.len() >= CALL_SITES_MAX && !call_sites.contains_key(&kind) {
            call_sites.retain(|_, call_site| call_site.paid_at > now || call_site.left_out > 0);
            if call_sites.len() >= CALL_SITES_MAX {
                return true;
            }
        }
        let call_site = call_sites.entry(kind).or_insert_with(|| CallSite {
            metadata,
            paid_at: now,
            // Not the hash of this line: the first line repeats nothing.
            said: !line.said,
            left_out: 0,
            example: String::new(),
        });
        let cost = if call_site.said == line.said {
            COST_OF_THE_SAME
        } else {
            COST
        };
        call_site.said = line.said;
        let paid_at = call_site.paid_at.max(now) + cost;
        if paid_at.duration_since(now) > SAVED_MAX {
            call_site.left_out += 1;
            call_site.example = line.message;
            return false;
        }
        call_site.paid_at = paid_at;
        true
    }

    fn call_sites(&self) -> MutexGuard<'_, HashMap<LineKind, CallSite>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Limit(Arc<Repeats>);

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || UNLIMITED.contains(&metadata.target()) {
            return true;
        }
        self.0.admit(metadata, Line::read(event), Instant::now())
    }
}

/// The identity of a line.
#[derive(Debug)]
struct Line {
    /// A hash of the plugin that it is about; 0 for no plugin.
    plugin: u64,
    /// A hash of its whole content.
    said: u64,
    /// Its message, truncated.
    message: String,
}

impl Line {
    fn read(event: &Event<'_>) -> Self {
        let mut reader = Reader::default();
        event.record(&mut reader);
        Self {
            plugin: reader.plugin,
            said: reader.said.0.finish(),
            message: reader.message.0,
        }
    }
}

#[derive(Default)]
struct Reader {
    plugin: u64,
    said: Hashed,
    message: Cut,
}

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into either cannot fail.
        let _ = write!(self.said, "{}={value:?};", field.name());
        match field.name() {
            "message" => drop(write!(self.message, "{value:?}")),
            "plugin" => {
                let mut plugin = Hashed::default();
                let _ = write!(plugin, "{value:?}");
                self.plugin = plugin.0.finish();
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Hashed(DefaultHasher);

impl fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The beginning of a text.
#[derive(Default)]
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = EXAMPLE_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Collects the lines that are let through.
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(Line::read(event).message);
        }
    }

    /// The lines that `say` writes, and the dropped ones.
    fn heard(say: impl FnOnce()) -> (Vec<String>, Vec<LeftOut>) {
        let (repeats, lines) = (Arc::<Repeats>::default(), Arc::default());
        let subscriber = tracing_subscriber::registry()
            .with(repeats.clone().layer())
            .with(Heard(Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, say);
        (
            std::mem::take(&mut *lines.lock().unwrap()),
            repeats.left_out(),
        )
    }

    #[test]
    fn a_repeated_line_is_logged_five_times_and_then_counted() {
        let (lines, left_out) = heard(|| (0..317).for_each(|_| warn!(port = 7, "no room")));
        assert_eq!(lines, ["no room"; 5]);
        let expected = LeftOut {
            level: Level::WARN,
            from: module_path!(),
            count: 312,
            example: "no room".to_owned(),
        };
        assert_eq!(left_out, [expected]);
    }

    #[test]
    fn one_call_site_may_log_a_hundred_different_lines() {
        let (lines, left_out) = heard(|| (0..150).for_each(|user| info!(user, "disconnected")));
        assert_eq!((lines.len(), left_out[0].count), (100, 50));
    }

    #[test]
    fn other_call_sites_and_plugins_are_not_silenced() {
        let fail = |plugin: &str| error!(plugin, "failed");
        let (lines, _) = heard(|| {
            (0..9).for_each(|_| fail("a"));
            fail("b");
            error!("other");
        });
        assert_eq!(lines[5..], ["failed", "other"]);
    }

    #[test]
    fn debug_lines_and_separately_limited_lines_are_not_limited() {
        let (lines, left_out) = heard(|| {
            (0..200).for_each(|_| debug!("detail"));
            (0..200).for_each(|_| info!(target: "signalbox::plugin", "a plugin's"));
            (0..200).for_each(|_| info!(target: "signalbox::audit", "an operator's"));
        });
        assert_eq!((lines.len(), left_out), (600, vec![]));
    }

    #[test]
    fn a_quiet_call_site_may_log_again() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let metadata = tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            info_span!("here").metadata().expect("it is enabled")
        });
        let admit = |after: u64| {
            let line = Line {
                plugin: 0,
                said: 1,
                message: "x".to_owned(),
            };
            repeats.admit(metadata, line, now + Duration::from_secs(after))
        };
        let admitted = |after| (0..10).filter(|_| admit(after)).count();
        assert_eq!(admitted(0), 5);
        assert_eq!(admitted(1), 1, "what it had left");
        assert_eq!(admitted(20), 0);
        assert_eq!(admitted(21), 1);
        assert_eq!(admitted(1_000), 5);
    }
}
