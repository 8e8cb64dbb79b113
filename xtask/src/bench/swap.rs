//! The swap: a plugin's file is replaced while messages flow, and every message must still arrive once and in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Bench;
use super::load::{self, LoadReport};
use super::neighbour::next_to;
use super::outcome::{CaseResult, Row, Target, Unit, median};
use super::subject::{Fields, Subject};
use crate::builds;

/// Load under which plugins are swapped.
const LOAD: &str = "--connections 2000 --rate 4000";

/// Time from one swap to the next. It is long enough that latency shows swaps as they occur in operation, and shorter
/// than in any real deployment.
const SWAP_INTERVAL: Duration = Duration::from_millis(500);

/// Time limit for a swap to go live. It is far above the target, so that a slow swap is measured instead of failing.
const SWAP_TIME_MAX: Duration = Duration::from_secs(10);

/// The figures of one swap.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Swapped {
    cached: bool,
    /// From the renaming of the file to the line in the log, in milliseconds.
    from_file_ms: f64,
    /// The server's own figure, in milliseconds.
    live_ms: f64,
}

/// Swaps plugins under load, and compares the latency with that of the same load without swaps.
pub(crate) fn run(bench: &Bench) -> anyhow::Result<CaseResult> {
    let mut result = CaseResult::default();
    let mut swaps = Vec::new();
    let [mut steady_p99, mut swapping_p99, mut next_to_p99] = [const { Vec::new() }; 3];
    let mut builds = Builds::new(bench)?;
    for round in 1..=bench.rounds() {
        let options = bench.options(LOAD);
        let subject = Subject::server(bench, Some(&builds.file))?;
        let steady = load::run(bench, &subject, &options)?;
        let (swapping, swapped) = run_with_swaps(bench, &subject, &options, &mut builds)?;
        let next_to = run_next_to(bench, &subject, &options, &swapped)?;
        for (against, report, p99) in [
            ("server at rest", steady, &mut steady_p99),
            ("server while it swaps", swapping, &mut swapping_p99),
            ("server next to other work", next_to, &mut next_to_p99),
        ] {
            result.check(against, &report);
            eprintln!("   round {round}, {against}: p99 {:.2} ms", report.p99_ms());
            p99.push(report.p99_ms());
        }
        let (cold, cached) = (from_file(&swapped, false), from_file(&swapped, true));
        eprintln!(
            "   round {round}: live in {:.0} ms cold ({}), {:.0} ms cached ({}), the server's own part {:.0} ms",
            median(&cold),
            cold.len(),
            median(&cached),
            cached.len(),
            median(&swapped.iter().map(|swap| swap.live_ms).collect::<Vec<_>>()),
        );
        swaps.extend(swapped);
    }
    result.rows = rows(&swaps, &steady_p99, swapping_p99, next_to_p99);
    Ok(result)
}

fn rows(
    swaps: &[Swapped],
    steady_p99: &[f64],
    swapping_p99: Vec<f64>,
    next_to_p99: Vec<f64>,
) -> Vec<Row> {
    let times = [
        ("file written to live, compiled", false, 250.0),
        ("file written to live, from the cache", true, 50.0),
    ];
    let times = times.map(|(measure, cached, bound)| {
        let samples = from_file(swaps, cached);
        let row = Row::new(measure, Unit::Milliseconds, samples);
        row.with_target(Target::AtMost(bound))
    });
    let latency = |measure, samples| {
        Row::new(measure, Unit::Milliseconds, samples).compared_with("steady", steady_p99)
    };
    let swapping = latency("p99 latency while swapping", swapping_p99);
    let next_to = latency("p99 latency next to other work", next_to_p99);
    let mut rows: Vec<_> = times.into_iter().filter(Row::has_samples).collect();
    rows.extend([swapping.with_target(Target::TimesAtMost(1.2)), next_to]);
    rows
}

fn from_file(swaps: &[Swapped], cached: bool) -> Vec<f64> {
    let swaps = swaps.iter().filter(|swap| swap.cached == cached);
    swaps.map(|swap| swap.from_file_ms).collect()
}

/// Alternates between new builds and builds that were live before, until the measured time is nearly over.
fn run_with_swaps(
    bench: &Bench,
    subject: &Subject,
    options: &[String],
    builds: &mut Builds,
) -> anyhow::Result<(LoadReport, Vec<Swapped>)> {
    let mut running = load::start(bench, &[subject], options, None)?;
    running.wait_for("measuring")?;
    let end = Instant::now() + bench.duration();
    let mut swaps = Vec::new();
    while Instant::now() + SWAP_INTERVAL / 2 < end {
        let next = Instant::now() + SWAP_INTERVAL;
        let renamed = builds.install(swaps.len() % 2 == 1)?;
        let swapped =
            subject.wait_for_line(SWAP_TIME_MAX, |line, at| parse_swap(line, at, renamed));
        swaps.push(swapped.context("the server did not swap the plugin")?);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok((running.finish()?, swaps))
}

/// Runs the load without swaps, but with as much work in another process as compiling takes.
fn run_next_to(
    bench: &Bench,
    subject: &Subject,
    options: &[String],
    swapped: &[Swapped],
) -> anyhow::Result<LoadReport> {
    let compiled = swapped.iter().filter(|swap| !swap.cached);
    let busy: Vec<_> = compiled.map(|swap| swap.live_ms).collect();
    let busy = Duration::from_secs_f64(median(&busy) / 1e3);
    // Every second swap compiles.
    next_to(busy, SWAP_INTERVAL * 2, || {
        load::run(bench, subject, options)
    })
}

/// Reads a swap that came after the file was renamed from a JSON line of the server's log. A start is not a swap.
fn parse_swap(line: &str, at: Instant, renamed: Instant) -> Option<Swapped> {
    let fields = Fields::of(line).filter(|_| at >= renamed)?;
    let field = |name: &str| fields.get(name);
    if field("message")? != "plugin swapped" || field("trigger")? == "start" {
        return None;
    }
    Some(Swapped {
        cached: field("cached")?.as_bool()?,
        from_file_ms: at.saturating_duration_since(renamed).as_secs_f64() * 1e3,
        // From the start of the reload until the version is live, without the time to notice the file.
        live_ms: field("live_ms")?.as_f64()?,
    })
}

/// Builds of one plugin that behave alike and differ in a custom section, so that the server treats them as different
/// versions.
struct Builds {
    original: Vec<u8>,
    /// The file that the server watches.
    file: PathBuf,
    /// Number of builds that have been live so far.
    made: u32,
}

impl Builds {
    fn new(bench: &Bench) -> anyhow::Result<Self> {
        let original = fs::read(&bench.plugin)
            .with_context(|| format!("cannot read {}", bench.plugin.display()))?;
        let folder = bench.folder().join("swap");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let mut builds = Self {
            original,
            file: folder.join("chat.wasm"),
            made: 0,
        };
        builds.install(false)?;
        Ok(builds)
    }

    /// Installs a build: a new one, or the one before the last if `known`. Returns the time at which the file was in
    /// place.
    fn install(&mut self, known: bool) -> anyhow::Result<Instant> {
        let number = if known {
            self.made.saturating_sub(1)
        } else {
            self.made + 1
        };
        self.made = self.made.max(number);
        let bytes = builds::numbered(&self.original, number);
        replace(&self.file, &bytes).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// Replaces a file in one step. Returns the time at which it was in place.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<Instant> {
    let next = file.with_extension("next");
    fs::write(&next, bytes)?;
    fs::rename(&next, file)?;
    Ok(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_read_from_nested_and_from_flat_fields() {
        let renamed = Instant::now();
        let at = renamed + Duration::from_millis(40);
        let fields = r#""message":"plugin swapped","plugin":"chat","trigger":"file","cached":true,"live_ms":3.5"#;
        let flat = format!("{{{fields}}}");
        for text in [
            &format!("{{\"level\":\"INFO\",\"fields\":{{{fields}}}}}"),
            &flat,
        ] {
            let swapped = parse_swap(text, at, renamed).expect("a swap");
            assert!(swapped.cached && swapped.live_ms == 3.5);
            assert!((swapped.from_file_ms - 40.0).abs() < 0.01);
        }
        assert_eq!(
            parse_swap(&flat, renamed, at),
            None,
            "the file was not there yet"
        );
        let start = flat.replace("\"file\"", "\"start\"");
        for other in [start.as_str(), "{\"message\":\"listening\"}", "plain text"] {
            assert_eq!(parse_swap(other, at, renamed), None, "{other}");
        }
    }

    #[test]
    fn cold_and_cached_swaps_are_distinguished() {
        let swap = |cached, from_file_ms| Swapped {
            cached,
            from_file_ms,
            live_ms: 1.0,
        };
        let swaps = [swap(false, 100.0), swap(true, 10.0), swap(false, 200.0)];
        let figures = |swaps| {
            let rows = rows(swaps, &[1.0], vec![1.1], vec![1.5]);
            rows.iter().map(Row::server).collect::<Vec<_>>()
        };
        assert_eq!(figures(&swaps), [150.0, 10.0, 1.1, 1.5]);
        assert_eq!(figures(&swaps[..1]), [100.0, 1.1, 1.5]);
    }
}
