//! A chat client for the terminal: sends the lines that are typed and shows incoming frames. Without a terminal, it
//! reads lines from standard input, waits for the answers, and exits with 0 if everything succeeded.

mod chat;
mod input;
mod show;

use std::{
    io::{BufRead, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use signalbox_client::Options;
use tokio::sync::mpsc;

use chat::{Chat, Settings};

/// Chat with others on a Signalbox server. `/help` lists the commands.
#[derive(Parser)]
struct Args {
    /// Your user ID, if the server needs no token (auth.mode = "none")
    #[arg(long, required_unless_present = "token")]
    user: Option<String>,
    /// Your token (auth.mode = "jwt")
    #[arg(long)]
    token: Option<String>,
    /// The address of the server
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    url: String,
    /// At the end of the input, stay until this many messages have arrived
    #[arg(long, default_value_t = 0)]
    expect: usize,
    /// At the end of the input, seconds to wait for answers and messages
    #[arg(long, default_value_t = 10)]
    timeout: u64,
}

fn main() -> ExitCode {
    match chat(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chat(args: &Args) -> anyhow::Result<bool> {
    let settings = Settings {
        client: identity(args),
        expect: args.expect,
        patience: Duration::from_secs(args.timeout),
    };
    if std::io::stdin().is_terminal() {
        println!("{}", input::HELP);
    }
    let chat = Chat::new(settings, |line| {
        // Text from others must not control the terminal.
        println!("{}", line.replace(char::is_control, " "));
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    runtime.block_on(chat.run(lines()))
}

/// Returns the lines of standard input. A detached thread reads them, so that the process can exit during a read.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn identity(args: &Args) -> Options {
    match (&args.token, &args.user) {
        (Some(token), _) => Options::token(&args.url, token),
        (None, user) => Options::user(&args.url, user.clone().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_or_a_token_is_needed() {
        assert!(Args::try_parse_from(["chat-client"]).is_err());
        let args = Args::try_parse_from(["chat-client", "--token", "a.b.c"]).unwrap();
        assert_eq!(identity(&args).url, "ws://127.0.0.1:8080/ws");
    }
}
