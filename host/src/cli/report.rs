//! The admission report, for people and as JSON.

use std::{
    fmt::{Display, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use signalbox::{
    config::PluginLimits,
    plugin::{Admission, AdmissionReport, LoadError, SampleCall, Sha256},
};

/// The result of checking a component.
pub(super) struct Report {
    pub(super) file: PathBuf,
    /// The content of the file; `None` if it cannot be read.
    pub(super) bytes: Option<Arc<[u8]>>,
    pub(super) admitted: Result<AdmittedDetails, LoadError>,
}

/// Part of a plugin's error about a function whose result would come later, such as a promise. A server fails every
/// such call, so a component is refused if one is seen here: its author must know before its users do.
const LATE: &str = "nobody waits for it";

/// The details of an admitted component.
pub(super) struct AdmittedDetails {
    pub(super) admission: Admission,
    pub(super) calls: Vec<SampleCall>,
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.add("file", self.file.display());
        if let Some(bytes) = &self.bytes {
            lines.add("size", format_args!("{} bytes", bytes.len()));
            lines.add("sha256", Sha256::of(bytes).to_string());
        }
        match &self.admitted {
            Ok(admitted) => {
                admitted.add_to(&mut lines);
                match admitted.late() {
                    Some(call) => lines.add("verdict", late(call)),
                    None => lines.add("verdict", admitted.verdict()),
                }
            }
            Err(error) => lines.add("verdict", format_args!("refused: {error}")),
        }
        lines.0
    }

    pub(super) fn json(&self) -> Value {
        let mut report = match &self.admitted {
            Ok(admitted) => match admitted.late() {
                Some(call) => json!(AdmissionReport::Refused {
                    step: "calls",
                    reason: format!("{}: {}", call.function, call.answer),
                }),
                None => admitted.json(),
            },
            Err(error) => json!(AdmissionReport::from(error)),
        };
        report["file"] = json!(self.file);
        if let Some(bytes) = &self.bytes {
            report["bytes"] = json!(bytes.len());
            report["sha256"] = json!(Sha256::of(bytes).to_string());
        }
        report
    }

    /// Whether a server would admit the component, and no sample call has shown that its results come too late.
    pub(super) fn is_admitted(&self) -> bool {
        let admitted = self.admitted.as_ref().ok();
        admitted.is_some_and(|admitted| admitted.late().is_none())
    }
}

fn is_late(call: &SampleCall) -> bool {
    call.warm.is_none() && call.answer.contains(LATE)
}

fn late(call: &SampleCall) -> String {
    format!("refused: {}: {}", call.function, call.answer)
}

impl AdmittedDetails {
    /// The first sample call of a function whose result comes later.
    fn late(&self) -> Option<&SampleCall> {
        self.calls.iter().find(|call| is_late(call))
    }

    /// A failed sample call is no reason to refuse the component: its real messages may never be like the sample.
    fn verdict(&self) -> &'static str {
        if self.calls.iter().any(|call| call.warm.is_none()) {
            "admitted, although calls fail: for messages like these `on_failure` decides"
        } else {
            "admitted"
        }
    }

    fn add_to(&self, lines: &mut Lines) {
        let Admission {
            metadata, trial, ..
        } = &self.admission;
        if let Some(name) = &metadata.name {
            lines.add("name", name);
        }
        if let Some(version) = &metadata.version {
            lines.add("version", version);
        }
        let (wasi, imports) = self.imports();
        lines.add("exports", listed(&self.admission.interfaces));
        if !trial.event_types.is_empty() {
            lines.add("handles", listed(&trial.event_types));
        }
        if !trial.request_types.is_empty() {
            lines.add("responds to", listed(&trial.request_types));
        }
        lines.add("imports", listed(&imports));
        lines.add("wasi", listed(&wasi));
        lines.add(
            "compile",
            compile_text(self.admission.compile, self.admission.cached),
        );
        lines.add("instantiate", milliseconds(trial.instantiate));
        if let Some(init) = trial.init {
            lines.add("init", milliseconds(init));
        }
        if let Some(self_test) = trial.self_test {
            lines.add("self-test", milliseconds(self_test));
        }
        lines.add("memory", format_args!("{} bytes after init", trial.memory));
        for call in &self.calls {
            let warm = call.warm.map(warm_text).unwrap_or_default();
            lines.add(
                "call",
                format_args!(
                    "{} of `{}`: {}; cold {}{warm}",
                    call.function,
                    call.about,
                    call.answer,
                    milliseconds(call.cold)
                ),
            );
        }
    }

    fn json(&self) -> Value {
        let calls: Vec<_> = self
            .calls
            .iter()
            .map(|call| {
                json!({
                    "function": call.function, "about": call.about, "answer": call.answer,
                    "cold_ms": ms(call.cold), "warm_ms": call.warm.map(ms),
                })
            })
            .collect();
        let mut report = json!(AdmissionReport::from(&self.admission));
        report["calls"] = json!(calls);
        report
    }

    /// Returns the imports from WASI, which offer next to nothing here, and the others.
    fn imports(&self) -> (Vec<&str>, Vec<&str>) {
        self.admission
            .imports
            .iter()
            .map(String::as_str)
            .partition(|name| name.starts_with("wasi:"))
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, title: &str, content: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{title:<12}{content}");
    }
}

fn listed<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    names.join(", ")
}

fn warm_text(warm: Duration) -> String {
    let max = PluginLimits::default().call_cpu_max;
    let text = format!(", warm {:.1} µs", warm.as_secs_f64() * 1e6);
    if warm > max {
        format!("{text}; on a server it fails, unless `call_cpu_max` exceeds the default {max:?}")
    } else {
        text
    }
}

fn compile_text(took: Duration, is_cached: bool) -> String {
    let max = PluginLimits::default().compile_time_max;
    let milliseconds = milliseconds(took);
    if is_cached {
        format!("{milliseconds}, done before")
    } else if took > max {
        format!(
            "{milliseconds}; a server that takes as long refuses it, unless its `compile_time_max` exceeds the default {max:?}"
        )
    } else {
        milliseconds
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", ms(duration))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_refused_whose_functions_answer_later_and_not_for_another_failure() {
        let call = |answer: &str, warm| SampleCall {
            function: "validation.validate",
            about: "chat_message".to_owned(),
            cold: Duration::ZERO,
            warm,
            answer: answer.to_owned(),
        };
        let promised =
            "failed: the plugin said: validate returned a promise, and nobody waits for it";
        assert!(is_late(&call(promised, None)));
        assert!(!is_late(&call("failed: the plugin said: no", None)));
        // A rejection that a client gets may use any words.
        assert!(!is_late(&call(
            "rejected: x: nobody waits for it",
            Some(Duration::ZERO)
        )));
    }

    #[test]
    fn a_call_that_takes_longer_than_a_server_allows_is_reported() {
        let slow = warm_text(Duration::from_millis(11));
        assert!(
            slow.starts_with(", warm 11000.0 µs; ") && slow.contains("call_cpu_max"),
            "{slow}"
        );
        assert_eq!(warm_text(Duration::from_millis(9)), ", warm 9000.0 µs");
    }

    #[test]
    fn a_component_that_compiles_for_longer_than_a_server_allows_is_reported() {
        let slow = compile_text(Duration::from_secs(121), false);
        assert!(
            slow.contains("refuses it") && slow.contains("compile_time_max"),
            "{slow}"
        );
        assert_eq!(
            compile_text(Duration::from_secs(119), false),
            "119000.00 ms"
        );
    }

    #[test]
    fn wrapper_modules_report_late_answers_in_these_words() {
        for module in [
            include_str!("plugin/build/javascript/calls.js"),
            include_str!("plugin/build/python/signalbox_calls.py"),
        ] {
            assert!(module.contains(&format!("and {LATE}: ")));
        }
    }
}
