//! The configuration of plugins: each plugin with its limits, and the versions of all.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

/// `[plugin_versions]`: the plugin versions that are kept for a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginVersionsConfig {
    /// The absolute folder for them; if `None`, they are kept in memory only.
    pub dir: Option<PathBuf>,
    /// The number of earlier versions per plugin, 1–20.
    pub keep: usize,
}

/// `[plugin_probation]`: when the probation of a new version ends, and when the version is rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbationConfig {
    /// How long a version is on probation, at most 1 h; zero disables the probation.
    pub time: Duration,
    /// The number of calls after which the probation ends early.
    pub calls: u64,
    /// The percentage of calls that may trap or miss their deadline, 1–100.
    pub failure_percent: u32,
    /// The number of calls before the share of failures is judged, at most `calls`.
    pub calls_min: u64,
    /// The number of users whose calls must fail, at least 2.
    pub users_min: usize,
}

impl Default for ProbationConfig {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            calls: 1_000,
            failure_percent: 5,
            calls_min: 20,
            users_min: 3,
        }
    }
}

/// One `[[plugins]]` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// Unique name, 1–64 of `a-z 0-9 _ -`.
    pub name: String,
    /// The component file, made absolute against the folder of the configuration file.
    pub path: PathBuf,
    /// The event types it sees: names, or prefixes that end in `*`.
    pub events: Vec<String>,
    /// The effect of a failed call on its message.
    pub on_failure: OnFailure,
    /// How calls are spread over instances.
    pub instances: InstanceMode,
    /// The limits of its calls.
    pub limits: PluginLimits,
    /// How a new version is tried before it goes live; if `None`, it goes live at once.
    pub rollout: Option<RolloutConfig>,
    /// `config` as JSON text, passed to `init`; `{}` if there is none.
    pub config_json: String,
}

impl PluginConfig {
    /// Identifies the configuration across processes and releases, as JSON. The path of the component and its rollout are
    /// left out, because they do not affect its behaviour.
    pub fn identity(&self) -> String {
        let Self {
            name,
            path: _,
            events,
            on_failure,
            instances,
            limits,
            rollout: _,
            config_json,
        } = self;
        serde_json::json!({
            "name": name,
            "events": events,
            "on_failure": on_failure,
            "instances": instances,
            "limits": limits,
            "config": config_json,
        })
        .to_string()
    }

    /// Whether a component with the configuration `other` is the same version as with this one.
    pub fn makes_same_version(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

/// How a new version of a plugin is tried before it goes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutConfig {
    /// On a share of the users.
    Canary {
        /// The percentage of users, 1–100.
        percent: u32,
    },
    /// On copies of the live version's calls; its answers are compared and discarded.
    Shadow,
}

/// The effect on a message if a plugin traps, exceeds a limit, or returns an invalid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The sender gets an `error`; the message is dropped.
    Reject,
    /// The message continues as if the plugin were not there.
    Pass,
}

/// How calls are spread over instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceMode {
    /// Any warm instance serves any call.
    Pool {
        /// The maximum number of instances, 1–1000 (`instances_max`, default 16).
        max: usize,
        /// Instances that are kept ready, 1–`max` (`instances_min`, default 2).
        min: usize,
    },
    /// One instance on this node; calls in order.
    Single,
}

/// The limits of one plugin. Each default is the contract's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PluginLimits {
    /// Linear memory of an instance, in bytes, 64 KiB – 1 GiB.
    pub memory_max: usize,
    /// CPU time of a call, 1 ms – 10 s.
    pub call_cpu_max: Duration,
    /// Wall time of a call with its host calls, at least `call_cpu_max`, at most 60 s.
    pub call_time_max: Duration,
    /// Wall time of `init`, and of `self-test`, at most 60 s.
    pub init_time_max: Duration,
    /// Time to compile the component, 10 ms – 1 h.
    pub compile_time_max: Duration,
    /// Actions that one call may return.
    pub actions_max: usize,
    /// Bytes that one call may return.
    pub output_bytes_max: usize,
    /// The idle time after which an instance beyond the minimum is released, at least 100 ms.
    pub instances_idle_time: Duration,
    /// How long messages may wait for a handover, 1 ms – 10 s.
    pub handover_time_max: Duration,
    /// Bytes of the state that is handed over.
    pub handover_bytes_max: usize,
    /// Bytes of one value in the store.
    pub store_value_bytes_max: usize,
    /// Bytes of one key in the store.
    pub store_key_bytes_max: usize,
    /// Store calls that one call may make.
    pub store_calls_max: u32,
    /// Bytes of all keys and values in the store.
    pub store_bytes_max: usize,
    /// Log lines per second; a line is cut at 1 KiB.
    pub log_lines_per_second: u32,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            memory_max: 64 << 20,
            call_cpu_max: Duration::from_millis(10),
            call_time_max: Duration::from_millis(50),
            init_time_max: Duration::from_secs(5),
            compile_time_max: Duration::from_secs(120),
            actions_max: 256,
            output_bytes_max: 1 << 20,
            instances_idle_time: Duration::from_secs(60),
            handover_time_max: Duration::from_millis(50),
            handover_bytes_max: 4 << 20,
            store_value_bytes_max: 64 << 10,
            store_key_bytes_max: 512,
            store_calls_max: 32,
            store_bytes_max: 64 << 20,
            log_lines_per_second: 100,
        }
    }
}
