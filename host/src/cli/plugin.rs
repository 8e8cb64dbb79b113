//! `signalbox check` and `signalbox plugin check`: admission without a server.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Subcommand;
use signalbox::{
    auth::Authenticator,
    config::{Config, InstanceMode, Limits, OnFailure, PluginConfig, PluginLimits},
    metrics::Metrics,
    plugin::{Admission, LoadError, Loader, MemoryStore, PluginVersion, hex},
};

use super::EXIT_CONFIG;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Try a component out, and report what it is and whether it would be admitted
    Check {
        /// The component
        file: PathBuf,
        /// What its `init` is given
        #[arg(long, default_value = "{}")]
        config_text: String,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &Command) -> ExitCode {
    let Command::Check {
        file,
        config_text,
        json,
    } = command;
    let name = file.file_stem().map_or_else(
        || "plugin".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    let config = PluginConfig {
        name,
        path: file.clone(),
        events: vec!["*".to_owned()],
        on_failure: OnFailure::Reject,
        instances: InstanceMode::Single,
        limits: PluginLimits::default(),
        config_json: config_text.clone(),
    };
    let admitted = admit(vec![config], Limits::default().plugin_file_bytes_max).pop();
    let Some((config, outcome)) = admitted else {
        return ExitCode::FAILURE;
    };
    if *json {
        println!("{}", report_json(&config, &outcome));
    } else {
        print_report(&config, &outcome);
    }
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_CONFIG)
    }
}

/// Prints a line for each plugin, and one for key files that are of no use. The configuration itself has been found
/// valid before.
pub(super) fn check_all(config: &Config) -> ExitCode {
    let outcomes = admit(config.plugins.clone(), config.limits.plugin_file_bytes_max);
    let mut refused = false;
    if let Err(error) = Authenticator::from_config(&config.auth) {
        refused = true;
        eprintln!("{error}");
    }
    for (plugin, outcome) in &outcomes {
        match outcome {
            Ok((version, admission)) => {
                println!(
                    "plugins.{}: admitted, version {}, exports {}",
                    plugin.name,
                    version.label(),
                    admission.interfaces.join(", ")
                );
            }
            Err(error) => {
                refused = true;
                eprintln!("plugins.{}: {error}", plugin.name);
            }
        }
    }
    if refused {
        return ExitCode::from(EXIT_CONFIG);
    }
    println!("the configuration is valid");
    ExitCode::SUCCESS
}

type Outcome = Result<(Arc<PluginVersion>, Admission), LoadError>;

fn admit(plugins: Vec<PluginConfig>, file_bytes_max: usize) -> Vec<(PluginConfig, Outcome)> {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let failed = |plugin| (plugin, Err(LoadError::Start(error.to_string())));
            return plugins.into_iter().map(failed).collect();
        }
    };
    runtime.block_on(async {
        let loader = Loader::new(
            "check",
            None,
            Arc::<MemoryStore>::default(),
            Arc::<Metrics>::default(),
        );
        let mut outcomes = Vec::new();
        for plugin in plugins {
            let outcome = match &loader {
                Ok(loader) => match read(&plugin, file_bytes_max) {
                    Ok(bytes) => loader.load(&Arc::new(plugin.clone()), bytes).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(LoadError::Start(error.to_string())),
            };
            outcomes.push((plugin, outcome));
        }
        outcomes
    })
}

fn read(plugin: &PluginConfig, max: usize) -> Result<Arc<[u8]>, LoadError> {
    let failed = |error: std::io::Error| LoadError::Read {
        path: plugin.path.clone(),
        reason: error.to_string(),
    };
    let bytes = std::fs::metadata(&plugin.path).map_err(failed)?.len();
    if bytes > max as u64 {
        return Err(LoadError::TooLarge { bytes, max });
    }
    std::fs::read(&plugin.path).map(Arc::from).map_err(failed)
}

fn print_report(config: &PluginConfig, outcome: &Outcome) {
    println!("file       {}", config.path.display());
    match outcome {
        Ok((version, admission)) => {
            println!("sha256     {}", hex(version.hash()));
            println!("size       {} bytes", admission.bytes);
            println!("exports    {}", admission.interfaces.join(", "));
            println!("imports    {}", admission.imports.join(", "));
            println!("compiled   in {:.1} ms", milliseconds(admission.compile));
            println!(
                "tried out  in {:.1} ms (init, event-types, self-test)",
                milliseconds(admission.trial)
            );
            println!("verdict    admitted");
        }
        Err(error) => println!("verdict    refused: {error}"),
    }
}

fn report_json(config: &PluginConfig, outcome: &Outcome) -> serde_json::Value {
    match outcome {
        Ok((version, admission)) => serde_json::json!({
            "file": config.path, "verdict": "admitted", "sha256": hex(version.hash()), "bytes": admission.bytes,
            "exports": admission.interfaces, "imports": admission.imports,
            "compile_ms": milliseconds(admission.compile), "trial_ms": milliseconds(admission.trial),
        }),
        Err(error) => {
            serde_json::json!({"file": config.path, "verdict": "refused", "reason": error.to_string()})
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
