//! A chat client for the terminal: sends the lines that are typed and shows incoming frames. Without a terminal, it
//! reads lines from standard input, waits for the answers, and exits with 0 if everything succeeded.

mod client;
mod input;
mod retry;
mod show;

use std::{
    io::{BufRead, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{
    client::IntoClientRequest, handshake::client::Request, http::HeaderValue,
};

use client::{Client, Options};
use retry::Backoff;

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
    let options = Options {
        request: request(args)?,
        expect: args.expect,
        patience: Duration::from_secs(args.timeout),
        backoff: Backoff::new(Duration::from_secs(1)),
    };
    if std::io::stdin().is_terminal() {
        println!("{}", input::HELP);
    }
    let client = Client::new(options, |line| {
        // Text from others must not control the terminal.
        println!("{}", line.replace(char::is_control, " "));
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    runtime.block_on(client.run(lines()))
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

fn request(args: &Args) -> anyhow::Result<Request> {
    let url = match &args.user {
        Some(user) => format!("{}?userId={}", args.url, encoded(user)),
        None => args.url.clone(),
    };
    let mut request = url
        .into_client_request()
        .with_context(|| format!("{} is no address of a WebSocket", args.url))?;
    let headers = request.headers_mut();
    // Enables `welcome`, `joined` and `left`.
    headers.insert(
        "Sec-WebSocket-Protocol",
        HeaderValue::from_static("signalbox.v1"),
    );
    if let Some(token) = &args.token {
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        headers.insert(
            "Authorization",
            bearer.context("the token cannot be sent in a header")?,
        );
    }
    Ok(request)
}

/// Percent-encodes `text` for a query string.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_fits_into_the_address() {
        assert_eq!(encoded("ann-1"), "ann-1");
        assert_eq!(encoded("ä &b"), "%C3%A4%20%26b");
    }

    #[test]
    fn a_user_or_a_token_is_needed() {
        assert!(Args::try_parse_from(["chat-client"]).is_err());
        let args = Args::try_parse_from(["chat-client", "--token", "a.b.c"]).unwrap();
        let request = request(&args).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), "/ws");
        assert_eq!(request.headers()["Authorization"], "Bearer a.b.c");
    }
}
