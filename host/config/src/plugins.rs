//! `[[plugins]]`: each entry, and conflicts between their names.

use std::path::Path;

use serde::Deserialize;

use super::{
    ConfigError, InstanceMode, OnFailure, PluginConfig, PluginLimits, RolloutConfig,
    settings::{self, Section},
    units,
};

/// Assembles the plugins, in the order of the chain.
pub(super) fn assemble(
    sections: &[Section],
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) -> Vec<PluginConfig> {
    settings::refuse_repeated(sections, "name", "plugin", errors);
    sections
        .iter()
        .map(|section| plugin(section, folder, errors))
        .collect()
}

fn plugin(section: &Section, folder: &Path, errors: &mut Vec<ConfigError>) -> PluginConfig {
    for (name, example) in [
        ("name", "\"chat\""),
        ("path", "\"plugins/chat.wasm\""),
        ("events", "[\"chat_message\", \"chat.*\"]"),
    ] {
        section.require(name, example, errors);
    }
    let events = section.texts("events");
    if section.has("events") && section.are_right(&["events"]) && events.is_empty() {
        errors.push(section.error(
            &["events"],
            "is empty, so that the plugin would never be called; name its event types, or write [\"*\"] for all",
        ));
    }
    PluginConfig {
        name: section.text("name"),
        path: folder.join(section.text("path")),
        events,
        on_failure: match section.text("on_failure").as_str() {
            "pass" => OnFailure::Pass,
            _ => OnFailure::Reject,
        },
        instances: instances(section, errors),
        limits: limits(section, errors),
        rollout: rollout(section, errors),
        config_json: section.json("config"),
    }
}

/// `rollout` as written in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRollout {
    mode: Option<String>,
    percent: Option<u32>,
}

fn rollout(section: &Section, errors: &mut Vec<ConfigError>) -> Option<RolloutConfig> {
    let text = section.json("rollout");
    if text == "{}" || !section.are_right(&["rollout"]) {
        return None;
    }
    if section.text("instances") == "single" {
        errors.push(section.error(
            &["rollout"],
            "cannot be combined with instances = \"single\", whose state exists in one version only; remove \
             it, or set instances = \"pool\"",
        ));
        return None;
    }
    let written = serde_json::from_str::<WrittenRollout>(&text).map_err(|error| {
        // The position in the error is useless: it refers to a table that was written as TOML.
        let error = error.to_string();
        let reason = error.split(" at line ").next();
        reason.unwrap_or_default().to_owned()
    });
    let known = written.and_then(|written| match (written.mode.as_deref(), written.percent) {
        (Some("canary"), Some(percent @ 1..=100)) => Ok(RolloutConfig::Canary { percent }),
        (Some("canary"), _) => Err("mode \"canary\" needs a percent from 1 to 100".to_owned()),
        (Some("shadow"), None) => Ok(RolloutConfig::Shadow),
        (Some("shadow"), Some(_)) => Err("percent has no effect with mode \"shadow\"".to_owned()),
        _ => Err("mode is \"canary\" or \"shadow\"".to_owned()),
    });
    known
        .map_err(|reason| {
            let example = "write for example rollout = { mode = \"canary\", percent = 5 }";
            errors.push(section.error(&["rollout"], format!("{reason}; {example}")));
        })
        .ok()
}

fn instances(section: &Section, errors: &mut Vec<ConfigError>) -> InstanceMode {
    if section.text("instances") == "single" {
        for name in ["instances_max", "instances_min", "instances_idle_time"] {
            if section.has(name) {
                errors.push(section.error(
                    &[name],
                    "has no effect with instances = \"single\"; remove it, or set instances = \"pool\"",
                ));
            }
        }
        return InstanceMode::Single;
    }
    let (max, min) = (
        section.count("instances_max") as usize,
        section.count("instances_min") as usize,
    );
    // A default `instances_min` is lowered to fit; only an explicit one is an error.
    if section.has("instances_min")
        && section.are_right(&["instances_max", "instances_min"])
        && min > max
    {
        errors.push(section.error(
            &["instances_min"],
            format!("{min} is more than instances_max, {max}; lower it, or raise the other"),
        ));
    }
    InstanceMode::Pool {
        max,
        min: min.min(max),
    }
}

fn limits(section: &Section, errors: &mut Vec<ConfigError>) -> PluginLimits {
    let (cpu, wall) = (section.time("call_cpu_max"), section.time("call_time_max"));
    if section.are_right(&["call_cpu_max", "call_time_max"]) && wall < cpu {
        let message = format!(
            "{} is shorter than call_cpu_max, {}, which could never be used up; raise it, or lower the other",
            units::format_duration(wall),
            units::format_duration(cpu)
        );
        errors.push(ConfigError {
            key: format!("{}.call_time_max", section.path),
            ..section.error(&["call_time_max", "call_cpu_max"], message)
        });
    }
    PluginLimits {
        memory_max: section.bytes("memory_max"),
        call_cpu_max: cpu,
        call_time_max: wall,
        init_time_max: section.time("init_time_max"),
        compile_time_max: section.time("compile_time_max"),
        actions_max: section.count("actions_max") as usize,
        output_bytes_max: section.bytes("output_bytes_max"),
        instances_idle_time: section.time("instances_idle_time"),
        handover_time_max: section.time("handover_time_max"),
        handover_bytes_max: section.bytes("handover_bytes_max"),
        store_value_bytes_max: section.bytes("store_value_bytes_max"),
        store_key_bytes_max: section.bytes("store_key_bytes_max"),
        store_calls_max: section.count("store_calls_max"),
        store_bytes_max: section.bytes("store_bytes_max"),
        log_lines_per_second: section.count("log_lines_per_second"),
    }
}
