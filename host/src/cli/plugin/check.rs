//! `signalbox check` and `signalbox plugin check`: admission without a server.

use std::{path::Path, process::ExitCode, sync::Arc};

use signalbox::{
    auth::{self, Authenticator},
    config::{Config, InstanceMode, Limits, OnFailure, PluginConfig},
    plugin::{self, CompilePriority, Loader, PluginManager, Trigger},
};

use super::{
    super::{
        EXIT_CONFIG,
        report::{AdmittedDetails, Report},
    },
    loader::{self, Compiling, with_loader},
    stem,
};

pub(super) fn run(file: &Path, config_text: &str, json: bool, compiling: Compiling) -> ExitCode {
    with_loader(compiling, async |loader, _| {
        let report = check(&loader, file, config_text).await;
        if json {
            println!("{}", report.json());
        } else {
            print!("{}", report.text());
        }
        if report.is_admitted() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_CONFIG)
        }
    })
}

/// Like `run`, but prints only one line if the component is admitted.
pub(super) fn run_briefly(file: &Path, config_text: &str) -> ExitCode {
    with_loader(Compiling::Once, async |loader, _| {
        let report = check(&loader, file, config_text).await;
        if report.is_admitted() {
            let bytes = report.bytes.as_ref().map_or(0, |bytes| bytes.len());
            println!("{}: {bytes} bytes, admitted", file.display());
            return ExitCode::SUCCESS;
        }
        eprint!("{}", report.text());
        ExitCode::from(EXIT_CONFIG)
    })
}

/// Admits the component in `file` with the [`loader::limits`], and makes sample calls to it.
async fn check(loader: &Loader, file: &Path, config_text: &str) -> Report {
    let config = Arc::new(PluginConfig {
        name: stem(file),
        path: file.to_owned(),
        events: vec!["*".to_owned()],
        on_failure: OnFailure::Reject,
        instances: InstanceMode::Pool { max: 2, min: 2 },
        limits: loader::limits(),
        rollout: None,
        config_json: config_text.to_owned(),
    });
    let content = plugin::source::read(file, Limits::default().plugin_file_bytes_max).await;
    let bytes = content.as_ref().ok().cloned();
    let loaded = match content {
        Ok(bytes) => loader.load(&config, bytes, CompilePriority::Full).await,
        Err(error) => Err(error),
    };
    let admitted = match loaded {
        Ok(version) => Ok(AdmittedDetails {
            calls: plugin::sample_calls(&version).await,
            admission: version.admission().clone(),
        }),
        Err(error) => Err(error),
    };
    Report {
        file: file.to_owned(),
        bytes,
        admitted,
    }
}

/// Prints a line for each plugin, one for token keys that cannot be used, and finally that `what` is valid. The
/// configuration itself has already been validated.
pub(in crate::cli) fn check_all(config: &Config, what: &str) -> ExitCode {
    with_loader(Compiling::Anew, async |loader, metrics| {
        let keys = Authenticator::new(&config.auth, metrics.clone());
        if let Err(error) = &keys {
            eprintln!("{error}");
        }
        match auth::try_url(&config.auth).await {
            None => {}
            Some(Ok(keys)) => println!("auth.jwks_url: fetched, {keys} keys"),
            Some(Err(reason)) => eprintln!(
                "warning: auth.jwks_url: {reason}; a server starts anyway, and refuses tokens until it gets the keys"
            ),
        }
        let manager = PluginManager::new(loader, metrics);
        let max = config.limits.plugin_file_bytes_max;
        let refusals = manager.apply(&config.plugins, max, Trigger::Start).await;
        for version in manager
            .live()
            .slots()
            .iter()
            .filter_map(plugin::PluginSlot::version)
        {
            println!(
                "plugins.{}: admitted, version {}, exports {}",
                version.name(),
                version.label(),
                version.interfaces().join(", ")
            );
        }
        for (name, error) in &refusals {
            eprintln!("plugins.{name}: {error}");
        }
        if refusals.is_empty() && keys.is_ok() {
            println!("{what} valid");
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_CONFIG)
        }
    })
}
