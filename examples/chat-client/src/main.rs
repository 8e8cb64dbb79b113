//! A chat client for the terminal: what is typed is sent, what comes in is shown. Without a terminal it reads lines,
//! waits for the answers, and says by its exit code whether all went well.

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

/// Chat with others on a Signalbox server. `/help` says what can be typed.
#[derive(Parser)]
struct Args {
    /// Who you are, where the server takes your word for it (auth.mode = "none")
    #[arg(long, required_unless_present = "token")]
    user: Option<String>,
    /// A token that says who you are (auth.mode = "jwt")
    #[arg(long)]
    token: Option<String>,
    /// Where the server is
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    url: String,
    /// At the end of the input, stay until so many messages came
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
        // What others wrote must not move the cursor or recolour the terminal.
        println!("{}", line.replace(char::is_control, " "));
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    runtime.block_on(client.run(lines()))
}

/// The lines of standard input. A thread of its own, which the end of the process need not wait for.
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
    // Brings `welcome`, `joined` and `left`.
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

/// For a query string.
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
