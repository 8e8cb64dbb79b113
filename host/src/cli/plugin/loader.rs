//! The loader with which the commands for authors admit components, and the compiled code that they share.

use std::{env, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use signalbox::{
    config::PluginLimits,
    metrics::Metrics,
    plugin::{Loader, MemoryStore},
};

/// Whether a component is compiled again if another command has already compiled it.
#[derive(Clone, Copy)]
pub(super) enum Compiling {
    /// Compile again, so that the compile time can be reported.
    Anew,
    /// Keep compiled code in a folder of this user. `plugin build`, `test` and `dev` are run one after another, and
    /// compiling a Python component takes ten seconds.
    Once,
}

/// Time limits. They are much higher than on a server, because a busy machine must not change a verdict.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(30 * 60);
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
const CALL_CPU_MAX: Duration = Duration::from_millis(100);

/// The default limits of a server, except that compiling and calls may take longer.
pub(super) fn limits() -> PluginLimits {
    PluginLimits {
        compile_time_max: COMPILE_TIME_MAX,
        call_cpu_max: CALL_CPU_MAX,
        call_time_max: CALL_TIME_MAX,
        ..PluginLimits::default()
    }
}

/// Runs `work` with a loader that has an in-memory store.
pub(super) fn with_loader(
    compiling: Compiling,
    work: impl AsyncFnOnce(Loader, Arc<Metrics>) -> ExitCode,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let folder = match compiling {
        Compiling::Anew => None,
        Compiling::Once => folder_of_user(
            env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
            env::home_dir(),
        ),
    };
    let metrics = Arc::<Metrics>::default();
    let loader = Loader::new(
        "check",
        folder.as_deref(),
        Arc::<MemoryStore>::default(),
        metrics.clone(),
    );
    match (runtime, loader) {
        (Ok(runtime), Ok(loader)) => runtime.block_on(work(loader, metrics)),
        (Err(error), _) => cannot_check(&error),
        (_, Err(error)) => cannot_check(&error),
    }
}

fn cannot_check(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("nothing can be checked: {error}");
    ExitCode::FAILURE
}

/// The folder in which this user's compiled components are cached (XDG Base Directory Specification, which ignores
/// paths that are not absolute). `None` if the user has no home: then nothing is kept.
fn folder_of_user(cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let folder = cache_home
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(home?.join(".cache")).filter(|folder| folder.is_absolute()))?;
    Some(folder.join("signalbox/compiled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_plugins_are_kept_in_the_users_cache_folder() {
        let of = |cache_home: Option<&str>, home: Option<&str>| {
            let folder = folder_of_user(cache_home.map(PathBuf::from), home.map(PathBuf::from))?;
            Some(folder.display().to_string())
        };
        let in_home = Some("/home/ann/.cache/signalbox/compiled".to_owned());
        assert_eq!(of(None, Some("/home/ann")), in_home);
        assert_eq!(of(Some("relative"), Some("/home/ann")), in_home);
        assert_eq!(
            of(Some("/cache"), Some("/home/ann")),
            Some("/cache/signalbox/compiled".to_owned())
        );
        assert_eq!(of(None, None), None);
        assert_eq!(of(None, Some("")), None);
    }
}
