//! The swap: a plugin's file is replaced while messages flow, and every message must still arrive once and in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Bench;
use super::load::{self, LoadReport};
use super::neighbour::IdleNeighbour;
use super::outcome::{CaseResult, Row, Target, Unit, median};
use super::subject::{LogLine, Subject};
use crate::builds;

/// How the server's log reports a swap. Only this module of the case knows it.
mod log {
    /// The message of the line.
    pub(super) const MESSAGE: &str = "plugin swapped";
    /// Field: the trigger of the swap. A start is not a swap.
    pub(super) const TRIGGER: &str = "trigger";
    /// Value of the trigger at the start.
    pub(super) const TRIGGER_START: &str = "start";
    /// Field: milliseconds from the start of the reload until the version is live, without the time to notice the file.
    pub(super) const LIVE_MS: &str = "live_ms";
    /// Field: whether the compiled code came from the cache.
    pub(super) const CACHED: &str = "cached";
}

/// Load under which plugins are swapped.
const CONNECTIONS: usize = 2_000;
const RATE: &str = "4000";

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
pub(crate) fn run(bench: &Bench, case: &'static str) -> anyhow::Result<CaseResult> {
    let mut result = CaseResult::default();
    let (mut swaps, mut steady_p99) = (Vec::new(), Vec::new());
    let (mut swapping_p99, mut beside_p99) = (Vec::new(), Vec::new());
    let mut builds = Builds::new(bench)?;
    for round in 1..=bench.rounds() {
        let connections = (bench.connections(CONNECTIONS) / 2 * 2).to_string();
        let options = ["--connections", &connections, "--rate", RATE];
        let subject = Subject::server(bench, Some(&builds.file))?;
        let steady = load::run(bench, &subject, &options)?;
        let (swapping, swapped) = run_with_swaps(bench, &subject, &options, &mut builds)?;
        let beside = run_beside(bench, &subject, &options, &swapped)?;
        result.check("server at rest", &steady);
        result.check("server while it swaps", &swapping);
        result.check("server beside other work", &beside);
        let (cold, cached) = (from_file(&swapped, false), from_file(&swapped, true));
        eprintln!(
            "   round {round}: p99 {:.2} ms steady, {:.2} ms swapping, {:.2} ms beside other work; live in {:.0} ms cold ({}), {:.0} ms cached ({}), \
             the server's own part {:.0} ms",
            steady.p99_ms(),
            swapping.p99_ms(),
            beside.p99_ms(),
            median(&cold),
            cold.len(),
            median(&cached),
            cached.len(),
            median(&swapped.iter().map(|swap| swap.live_ms).collect::<Vec<_>>()),
        );
        steady_p99.push(steady.p99_ms());
        swapping_p99.push(swapping.p99_ms());
        beside_p99.push(beside.p99_ms());
        swaps.extend(swapped);
    }
    result.rows = rows(case, &swaps, &steady_p99, swapping_p99, beside_p99);
    Ok(result)
}

fn rows(
    case: &'static str,
    swaps: &[Swapped],
    steady_p99: &[f64],
    swapping_p99: Vec<f64>,
    beside_p99: Vec<f64>,
) -> Vec<Row> {
    let time = |measure, cached, bound| {
        let samples = from_file(swaps, cached);
        let server = median(&samples);
        (!samples.is_empty()).then_some(Row {
            case,
            measure,
            unit: Unit::Milliseconds,
            server,
            samples,
            reference: None,
            target: Target::AtMost(bound),
        })
    };
    let latency = |measure, samples: Vec<f64>, target| Row {
        case,
        measure,
        unit: Unit::Milliseconds,
        server: median(&samples),
        samples,
        reference: Some(("steady", median(steady_p99))),
        target,
    };
    let swapping = latency(
        "p99 latency while swapping",
        swapping_p99,
        Target::TimesAtMost(1.2),
    );
    let beside = latency("p99 latency beside other work", beside_p99, Target::None);
    let cold = time("file written to live, compiled", false, 250.0);
    let cached = time("file written to live, from the cache", true, 50.0);
    cold.into_iter()
        .chain(cached)
        .chain([swapping, beside])
        .collect()
}

fn from_file(swaps: &[Swapped], cached: bool) -> Vec<f64> {
    swaps
        .iter()
        .filter(|swap| swap.cached == cached)
        .map(|swap| swap.from_file_ms)
        .collect()
}

/// Alternates between new builds and builds that were live before, until the measured time is nearly over.
fn run_with_swaps(
    bench: &Bench,
    subject: &Subject,
    options: &[&str],
    builds: &mut Builds,
) -> anyhow::Result<(LoadReport, Vec<Swapped>)> {
    let mut running = load::start(bench, subject, options)?;
    running.wait_until_measuring()?;
    let end = Instant::now() + bench.duration();
    let mut swaps = Vec::new();
    while Instant::now() + SWAP_INTERVAL / 2 < end {
        let next = Instant::now() + SWAP_INTERVAL;
        let renamed = builds.install(swaps.len() % 2 == 1)?;
        let swapped = subject.wait_for_line(SWAP_TIME_MAX, |line| parse_swap(line, renamed));
        swaps.push(swapped.context("the server did not swap the plugin")?);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok((running.finish()?, swaps))
}

/// Runs the load without swaps, but with as much work in another process as compiling takes.
fn run_beside(
    bench: &Bench,
    subject: &Subject,
    options: &[&str],
    swapped: &[Swapped],
) -> anyhow::Result<LoadReport> {
    let compiled = swapped.iter().filter(|swap| !swap.cached);
    let busy: Vec<_> = compiled.map(|swap| swap.live_ms).collect();
    let busy = Duration::from_secs_f64(median(&busy) / 1e3);
    // Every second swap compiles.
    let _neighbour = IdleNeighbour::start(busy, SWAP_INTERVAL * 2)?;
    load::run(bench, subject, options)
}

/// Reads a swap that came after the file was renamed from a JSON line of the server's log.
fn parse_swap(line: &LogLine, renamed: Instant) -> Option<Swapped> {
    if line.at < renamed {
        return None;
    }
    let fields = line.fields()?;
    let field = |name: &str| fields.get(name);
    if field("message")?.as_str()? != log::MESSAGE
        || field(log::TRIGGER)?.as_str()? == log::TRIGGER_START
    {
        return None;
    }
    Some(Swapped {
        cached: field(log::CACHED)?.as_bool()?,
        from_file_ms: line.at.saturating_duration_since(renamed).as_secs_f64() * 1e3,
        live_ms: field(log::LIVE_MS)?.as_f64()?,
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

    fn line(text: &str, at: Instant) -> LogLine {
        LogLine {
            at,
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_swap_is_read_from_nested_and_from_flat_fields() {
        let renamed = Instant::now();
        let at = renamed + Duration::from_millis(40);
        let fields = r#""message":"plugin swapped","plugin":"chat","trigger":"file","cached":true,"live_ms":3.5"#;
        for text in [
            format!("{{\"level\":\"INFO\",\"fields\":{{{fields}}}}}"),
            format!("{{{fields}}}"),
        ] {
            let swapped = parse_swap(&line(&text, at), renamed).expect("a swap");
            assert!(
                swapped.cached
                    && (swapped.from_file_ms - 40.0).abs() < 0.01
                    && swapped.live_ms == 3.5
            );
        }
        let early = line(&format!("{{{fields}}}"), renamed);
        assert_eq!(
            parse_swap(&early, at),
            None,
            "a line from before the file was there"
        );
        let start = fields.replace("\"file\"", "\"start\"");
        for other in [
            format!("{{{start}}}"),
            "{\"message\":\"listening\"}".to_owned(),
            "plain text".to_owned(),
        ] {
            assert_eq!(parse_swap(&line(&other, at), renamed), None, "{other}");
        }
    }

    #[test]
    fn cold_and_cached_swaps_are_told_apart() {
        let swap = |cached, from_file_ms| Swapped {
            cached,
            from_file_ms,
            live_ms: 1.0,
        };
        let swaps = [swap(false, 100.0), swap(true, 10.0), swap(false, 200.0)];
        let rows = rows("swap", &swaps, &[1.0], vec![1.1], vec![1.5]);
        assert_eq!(
            rows.iter().map(|row| row.server).collect::<Vec<_>>(),
            [150.0, 10.0, 1.1, 1.5]
        );
        let rows = super::rows("swap", &swaps[..1], &[1.0], vec![1.1], vec![1.5]);
        assert_eq!(rows.len(), 3);
    }
}
