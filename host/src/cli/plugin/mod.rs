//! `signalbox plugin`: plugin projects, components without a server, and the plugins of a running server.

mod build;
mod check;
mod dev;
mod loader;
mod new;
mod remote;
mod test;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(super) use check::check_all;
use clap::Subcommand;
use loader::Compiling;

#[derive(Subcommand)]
pub(super) enum PluginCommand {
    /// Make a plugin project that builds
    New {
        /// The plugin's name: letters in lower case, digits and hyphens
        name: String,
        /// Language that it is written in
        #[arg(long, value_enum)]
        lang: new::Language,
        /// Folder to create; default: one with the plugin's name
        #[arg(long)]
        path: Option<PathBuf>,
    },
    /// Build the plugin in this folder, and report as `check` does
    Build {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Configuration text that its `init` gets
        #[arg(long, default_value = "{}")]
        config_text: String,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// On each save, build the plugin in a folder, run its cases, and push it to a running server
    Dev {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Configuration text that its `init` gets when it is tried out
        #[arg(long, default_value = "{}")]
        config_text: String,
        #[command(flatten)]
        server: remote::RemoteServer,
    },
    /// Turn a core module that was compiled from Go or C into a component
    Component {
        /// The core module
        module: PathBuf,
        /// The component
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Try out a component, and report its properties and whether it would be admitted
    Check {
        /// The component
        file: PathBuf,
        /// Configuration text that its `init` gets
        #[arg(long, default_value = "{}")]
        config_text: String,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run recorded messages through a component, and compare the outcomes with the expected ones
    Test {
        /// The component; default: the one that `build` made in this folder
        file: Option<PathBuf>,
        /// The messages, and the expected outcome of each: docs/plugin-testing.md describes the format; default: the
        /// project's
        #[arg(long)]
        events: Option<PathBuf>,
        /// Configuration text that its `init` gets, instead of the one in the file with the messages
        #[arg(long)]
        config_text: Option<String>,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the plugins of a running server, and their versions
    List {
        #[command(flatten)]
        server: remote::RemoteServer,
    },
    /// Make a server read the file of a plugin again
    Reload {
        /// The plugin's name in the configuration
        name: String,
        /// Even if a pushed version, or one that was rolled back to, is live
        #[arg(long)]
        force: bool,
        /// On every node of its cluster, regardless of what was pushed with --cluster before
        #[arg(long, conflicts_with = "force")]
        cluster: bool,
        #[command(flatten)]
        server: remote::RemoteServer,
    },
    /// Make a server go back to an earlier version of a plugin
    Rollback {
        /// The plugin's name in the configuration
        name: String,
        /// The beginning of its sha256, 12 digits or more; default: the latest version that was not rolled back itself
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        server: remote::RemoteServer,
    },
    /// Swap in a component on a running server
    Push {
        /// The component; default: the one that `build` made in this folder
        file: Option<PathBuf>,
        /// The plugin's name in the configuration; default: the name of the file
        #[arg(long)]
        name: Option<String>,
        /// Even if this version was rolled back on probation
        #[arg(long, conflicts_with = "cluster")]
        force: bool,
        /// Go live at once and for good, however often it fails
        #[arg(long)]
        no_probation: bool,
        /// On all nodes of its cluster together, or on none
        #[arg(long)]
        cluster: bool,
        /// With --cluster: go live once this many nodes admit it; nodes that refuse it keep their version
        #[arg(long, requires = "cluster", value_parser = clap::value_parser!(u32).range(1..))]
        quorum: Option<u32>,
        #[command(flatten)]
        server: remote::RemoteServer,
    },
}

pub(super) fn run(command: &PluginCommand) -> ExitCode {
    match command {
        PluginCommand::New { name, lang, path } => new::run(name, *lang, path.as_deref()),
        PluginCommand::Build {
            folder,
            config_text,
            json,
        } => build::run(folder, config_text, *json),
        PluginCommand::Dev {
            folder,
            config_text,
            server,
        } => dev::run(folder, config_text, server),
        PluginCommand::Component { module, output } => build::encode(module, output),
        PluginCommand::Check {
            file,
            config_text,
            json,
        } => check::run(file, config_text, *json, Compiling::Anew),
        PluginCommand::Test {
            file,
            events,
            config_text,
            json,
        } => in_project(|project| {
            let file = file
                .clone()
                .map_or_else(|| project().map(|it| it.component()), Ok)?;
            let events = events
                .clone()
                .map_or_else(|| project().map(|it| it.cases()), Ok)?;
            Ok(test::run(&file, &events, config_text.as_deref(), *json))
        }),
        PluginCommand::List { server } => server.list(),
        PluginCommand::Reload {
            name,
            force,
            cluster,
            server,
        } => server.reload(name, *force, *cluster),
        PluginCommand::Rollback { name, to, server } => server.roll_back(name, to.as_deref()),
        PluginCommand::Push {
            file,
            name,
            force,
            no_probation,
            cluster,
            quorum,
            server,
        } => in_project(|project| {
            let file = file
                .clone()
                .map_or_else(|| project().map(|it| it.component()), Ok)?;
            let scope = if *cluster {
                remote::PushScope::Cluster { quorum: *quorum }
            } else {
                remote::PushScope::Node { force: *force }
            };
            Ok(server.push(&file, name.as_deref(), scope, *no_probation))
        }),
    }
}

/// Runs a command that takes arguments it was not given from the project in this folder.
fn in_project(
    command: impl FnOnce(&dyn Fn() -> anyhow::Result<build::Project>) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    command(&|| build::Project::read(Path::new("."))).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// The name of a component's file, without its folder and extension.
fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(
        || "plugin".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}
