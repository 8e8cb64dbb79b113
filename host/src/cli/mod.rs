//! The command line: the output and the exit code of each command. Exit code 2 means that the configuration is invalid,
//! 1 means any other failure.

mod http;
mod plugin;
mod report;
mod serve;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Parser, Subcommand};
use signalbox::{
    Source,
    auth::token,
    config::{AuthConfig, Config, DEFAULT_FILE, Environment, environment},
};

/// The exit code for an invalid configuration.
const EXIT_CONFIG: u8 = 2;

/// A realtime WebSocket server that is extended with WebAssembly plugins.
#[derive(Parser)]
#[command(name = "signalbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT, then drain (the default)
    Run {
        /// The configuration file; default: platform.toml if it exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Validate the configuration and every plugin
    Check {
        /// The configuration file; default: platform.toml if it exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Make a token for trying things out, signed with the configured HS256 secret
    Token {
        /// The user that the token names
        #[arg(long)]
        user: String,
        /// Make a token for joining this room (`join = "token"`) instead of one for connecting
        #[arg(long)]
        room: Option<String>,
        /// How long it is valid
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// The configuration file; default: platform.toml if it exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Work on plugins
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let command = Cli::parse()
        .command
        .unwrap_or(Command::Run { config: None });
    match command {
        Command::Run { config } => load(config.as_deref())
            .map_or_else(|code| code, |(config, source)| serve::run(config, source)),
        Command::Check { config } => load(config.as_deref())
            .map_or_else(|code| code, |(config, source)| check(&config, &source)),
        Command::Token {
            user,
            room,
            ttl,
            config,
        } => load(config.as_deref()).map_or_else(
            |code| code,
            |(config, _)| issue(&config, &user, room.as_deref(), ttl),
        ),
        Command::Plugin(command) => plugin::run(&command),
    }
}

/// Loads the configuration. If it is invalid, prints every error in it and returns the exit code.
fn load(file: Option<&Path>) -> Result<(Config, Source), ExitCode> {
    let wrong = |errors: signalbox::config::ConfigErrors| {
        eprintln!("{errors}");
        ExitCode::from(EXIT_CONFIG)
    };
    let env: Environment = environment::gather(Path::new(".")).map_err(wrong)?;
    let default = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| default.exists().then_some(default));
    let config = Config::load(file, &env).map_err(wrong)?;
    let file = file.map(Path::to_owned);
    Ok((config, Source { file, env }))
}

/// Names the source of the configuration, in one sentence.
fn described(source: &Source) -> String {
    let absolute = |file: &Path| std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut text = match &source.file {
        Some(file) => format!("the configuration is {}", absolute(file).display()),
        None => format!(
            "there is no configuration file: {} is not there, so the defaults apply and no plugin runs; write one \
             there, or name one with --config",
            absolute(Path::new(DEFAULT_FILE)).display()
        ),
    };
    let dotenv_files: Vec<&str> = environment::FILES
        .into_iter()
        .filter(|file| Path::new(file).exists())
        .collect();
    if !dotenv_files.is_empty() {
        text += &format!(" (and the variables of {})", dotenv_files.join(" and "));
    }
    text
}

fn check(config: &Config, source: &Source) -> ExitCode {
    println!("{}", described(source));
    for advice in &config.advice {
        eprintln!("warning: {advice}");
    }
    let what = match &source.file {
        Some(_) => "the configuration is",
        None => "the defaults and the variables are",
    };
    plugin::check_all(config, what)
}

fn issue(config: &Config, user: &str, room: Option<&str>, ttl: Duration) -> ExitCode {
    let AuthConfig::Jwt(jwt) = &config.auth else {
        eprintln!(
            "tokens are for auth.mode = \"jwt\"; this configuration has auth.mode = \"none\""
        );
        return ExitCode::FAILURE;
    };
    match token::issue_for(jwt, user, room, ttl, SystemTime::now()) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
