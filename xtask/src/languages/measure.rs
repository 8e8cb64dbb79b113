//! `cargo xtask bench --languages`: measures the cost of a plugin in each language. The plugin is that of the template,
//! which does the same in each.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::chain::{self, Effort};
use super::signalbox::{Missing, Signalbox};
use super::{LANGUAGES, journey};
use crate::temp::TempDir;

/// Number of reports for each component; the medians count.
const ROUNDS: usize = 5;

/// The figures of one language.
struct Figures {
    language: &'static str,
    bytes: f64,
    compile_ms: f64,
    instantiate_ms: f64,
    memory: f64,
    /// A call with a message that the plugin ignores: the cost of calling.
    idle_us: f64,
    /// A call that answers with a message.
    reply_us: f64,
}

/// The work for a row of plugins: a minute under load, in which each is replaced five times.
const CHAIN: Effort = Effort {
    rate: 2_000,
    time: Duration::from_secs(12),
    swaps: 5,
};

/// Builds each template with `program`, a release build, and prints a table. Then puts them in a row under load from
/// the generator `load`, and prints another table.
pub(crate) fn measure(program: &Path, load: &Path) -> anyhow::Result<()> {
    let folder = TempDir::new("measure")?;
    let signalbox = Signalbox::new(program, folder.path());
    let mut table = String::from(
        "| language | size | compile | instantiate | memory | warm call, of no interest | warm call with a reply |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut measured = Vec::new();
    for language in LANGUAGES {
        eprintln!("== {language}");
        let line = match of(&signalbox, language) {
            Ok(figures) => {
                measured.push((*language).to_owned());
                figures.line()
            }
            Err(error) if error.is::<Missing>() => format!("| {language} | SKIPPED: {error} |"),
            Err(error) => return Err(error.context(*language)),
        };
        table.push_str(&line);
        table.push('\n');
    }
    println!("{}", table.trim_end());
    eprintln!("== all in a row");
    let seen = chain::run(&signalbox, load, &measured, &CHAIN)?;
    println!("\n{}\n{}", seen.summary(), seen.table().trim_end());
    Ok(())
}

fn of(signalbox: &Signalbox, language: &'static str) -> anyhow::Result<Figures> {
    let name = journey::name(language);
    signalbox.new_project(&name, language)?;
    let folder = signalbox.folder(&name);
    signalbox.run(&folder, &["plugin", "build"])?;
    let component = format!("dist/{name}.wasm");
    let mut reports = Vec::new();
    for _ in 0..ROUNDS {
        reports.push(report(signalbox, &folder, &component)?);
    }
    let median = |of: &dyn Fn(&Value) -> Option<f64>| -> anyhow::Result<f64> {
        let figures: Option<Vec<f64>> = reports.iter().map(of).collect();
        let mut figures = figures.context("the report of plugin check has other fields")?;
        figures.sort_by(f64::total_cmp);
        Ok(figures[figures.len() / 2])
    };
    let warm = |function: &'static str| {
        move |report: &Value| {
            let calls = report["calls"].as_array()?;
            let call = calls.iter().find(|call| call["function"] == function)?;
            call["warm_ms"].as_f64().map(|ms| ms * 1e3)
        }
    };
    Ok(Figures {
        language,
        bytes: median(&|report| report["bytes"].as_f64())?,
        compile_ms: median(&|report| report["compile_ms"].as_f64())?,
        instantiate_ms: median(&|report| report["instantiate_ms"].as_f64())?,
        memory: median(&|report| report["memory_bytes"].as_f64())?,
        idle_us: median(&warm("validation.validate"))?,
        reply_us: median(&warm("events.handle"))?,
    })
}

fn report(signalbox: &Signalbox, folder: &Path, component: &str) -> anyhow::Result<Value> {
    let mut command = signalbox.command(folder);
    let output = command
        .args(["plugin", "check", component, "--json"])
        .output()?;
    ensure!(
        output.status.success(),
        "{component} is not admitted: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).context("plugin check --json printed no JSON")
}

impl Figures {
    fn line(&self) -> String {
        format!(
            "| {} | {} | {:.0} ms | {:.2} ms | {} | {:.1} µs | {:.1} µs |",
            self.language,
            size(self.bytes),
            self.compile_ms,
            self.instantiate_ms,
            size(self.memory),
            self.idle_us,
            self.reply_us
        )
    }
}

fn size(bytes: f64) -> String {
    match bytes {
        small if small < 1e6 => format!("{:.0} KB", small / 1e3),
        large => format!("{:.1} MB", large / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(
            (size(19_400.0), size(3_360_000.0)),
            ("19 KB".to_owned(), "3.4 MB".to_owned())
        );
    }
}
