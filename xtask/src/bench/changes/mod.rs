//! A hundred plugin changes in a row under load: swaps, canaries, rollbacks and handovers take turns.
//!
//! Every message goes through two plugins: `tally`, which counts in its memory, and `chat`. None may be lost,
//! duplicated or reordered; each must be attributed to one version of each plugin; and each new version must get the
//! complete count.

mod admin;
mod driver;
mod ledger;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use self::driver::{Components, Driver, Kind};
use super::Bench;
use super::load::{self, LoadReport};
use super::outcome::{CaseResult, Row, Target, Unit};
use super::subject::{Subject, server_config};

/// The plugin that ships with the server. In this case, it is the one that is swapped, tried and rolled back.
const CHAT: &str = "chat";

/// The plugin that counts, and hands over its count.
const TALLY: &str = "tally";

/// The folder of this case.
const FOLDER: &str = "changes";

/// The key of the server's API, which listens only on this machine and only for this run.
const ADMIN_KEY: &str = "bench-changes-0123456789abcdef";

/// Load under which plugins are changed.
const LOAD: &str = "--connections 400 --rate 20000";
const LOAD_QUICK: &str = "--connections 400 --rate 2000";

/// Changes in a row.
const CHANGES: usize = 100;
const CHANGES_QUICK: usize = 12;

/// Minimum time from the start of one change to the start of the next. As in the case `swap`, it is shorter than in any
/// real deployment, and long enough that latency shows changes as they occur in operation.
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);

/// Time limit for one change, far longer than it takes. The load ends then at the latest.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(10);

/// The server's configuration in addition to that of all cases. Versions are tried for a time and not for a number of
/// calls, because all users together make twenty times as many calls as a canary's users. The time limits are so high
/// that no call comes near them, although this machine's processors also compile plugins and generate the load: the
/// cost of waiting shows in the latency.
const CONFIG: &str = r#"
[plugin_probation]
time = "1s"
calls = 1000000

[[plugins]]
name = "tally"
path = "tally.wasm"
events = ["chat_message"]
instances = "single"
call_time_max = "2s"
handover_time_max = "500ms"

[[plugins]]
name = "chat"
path = "chat.wasm"
events = ["chat_message", "chat.*"]
on_failure = "pass"
call_time_max = "2s"
rollout = { mode = "canary", percent = 5 }
"#;

/// The result of a run with changes.
struct Changed {
    report: LoadReport,
    made: usize,
    took: Duration,
}

/// Compares the latency while plugins change with that of the same load before and after, and checks that every message
/// is accounted for.
pub(crate) fn run(bench: &Bench) -> anyhow::Result<CaseResult> {
    let mut result = CaseResult::default();
    let folder = bench.folder().join(FOLDER);
    let components = prepare(bench, &folder)?;
    let config = server_config(None, None) + &format!("\n[admin]\nkey = \"{ADMIN_KEY}\"\n{CONFIG}");
    let subject = Subject::configured(bench, &format!("{FOLDER}/platform.toml"), &config)?;
    let mut driver = Driver::new(&subject, ADMIN_KEY, components);
    let options = bench.options(if bench.quick { LOAD_QUICK } else { LOAD });

    let before = load::run(bench, &subject, &options)?;
    let changed = change_under_load(bench, &subject, &options, &mut driver)?;
    let after = load::run(bench, &subject, &options)?;
    // Another handover, to see the count after everything that was sent has been counted.
    driver.hand_over()?;
    driver.settle_all()?;

    result.check("server at rest", &before);
    result.check("server while plugins change", &changed.report);
    result.check("server at rest again", &after);
    let reports = [&before, &changed.report, &after];
    let sent = reports.iter().map(|report| report.sent_in_all).sum();
    let seen = (driver.chat.calls(), driver.tally.calls(), driver.counted);
    result.broken.extend(misattributed(sent, seen));
    let steady = [before.p99_ms(), after.p99_ms()];
    eprintln!(
        "   {} changes in {:.0} s: p99 {:.2} ms, {:.2} ms before and {:.2} ms after; {sent} messages",
        changed.made,
        changed.took.as_secs_f64(),
        changed.report.p99_ms(),
        steady[0],
        steady[1],
    );
    let (made, p99) = (changed.made as f64, changed.report.p99_ms());
    let held = driver.held_ms;
    result.rows = vec![
        Row::new("changes", Unit::Count, vec![made]),
        Row::new("p99 latency while changing", Unit::Milliseconds, vec![p99])
            .compared_with("steady", &steady)
            .with_target(Target::TimesAtMost(1.2)),
        Row::new("messages held for a handover", Unit::Milliseconds, held),
    ];
    Ok(result)
}

/// Describes what is wrong, unless every message was seen by one version of each plugin, and counted once.
fn misattributed(sent: u64, seen: (u64, u64, u64)) -> Option<String> {
    let (chat, tally, counted) = seen;
    (seen != (sent, sent, sent)).then(|| {
        format!(
            "of {sent} messages the versions of {CHAT} saw {chat} and those of {TALLY} {tally}, whose memory counted {counted}"
        )
    })
}

/// Prepares the folder of the server, with the files of its plugins.
fn prepare(bench: &Bench, folder: &Path) -> anyhow::Result<Components> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let tally = folder.join("tally.wasm");
    let built = bench.guests.join("tally.wasm");
    fs::copy(&built, &tally).with_context(|| format!("cannot copy {}", built.display()))?;
    Components::read(&bench.plugin, &tally, folder.join("chat.wasm"))
}

/// Makes the changes under load, and ends the load once they are made.
fn change_under_load(
    bench: &Bench,
    subject: &Subject,
    options: &[String],
    driver: &mut Driver<'_>,
) -> anyhow::Result<Changed> {
    let changes = if bench.quick { CHANGES_QUICK } else { CHANGES };
    let longest = CHANGE_TIME_MAX * u32::try_from(changes)?;
    let mut running = load::start(bench, &[subject], options, Some(longest))?;
    running.wait_for("measuring")?;
    let began = Instant::now();
    for kind in Kind::TURNS.into_iter().cycle().take(changes) {
        let next = Instant::now() + CHANGE_INTERVAL;
        driver.change(kind)?;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let took = began.elapsed();
    Ok(Changed {
        report: running.finish()?,
        made: changes,
        took,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_seen_by_no_version_or_by_two_is_reported() {
        assert_eq!(misattributed(5, (5, 5, 5)), None);
        for seen in [(4, 5, 5), (5, 6, 5), (5, 5, 4)] {
            assert!(misattributed(5, seen).is_some_and(|what| what.starts_with("of 5 messages")));
        }
    }
}
