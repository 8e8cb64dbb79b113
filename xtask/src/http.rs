//! Sends one HTTP request to a server on this machine, over a connection that is closed afterwards.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

/// Calls `path`. `head` holds further lines of the head, each ending with CRLF. `time_max` bounds connecting and each
/// read.
///
/// # Errors
/// Returns an error if there is no connection, or no response with a status.
pub(crate) fn call(
    address: SocketAddr,
    (method, path): (&str, &str),
    head: &str,
    body: &[u8],
    time_max: Option<Duration>,
) -> anyhow::Result<(u16, String)> {
    let mut stream = match time_max {
        Some(time_max) => TcpStream::connect_timeout(&address, time_max)?,
        None => TcpStream::connect(address)?,
    };
    stream.set_read_timeout(time_max)?;
    stream.write_all(&request((method, path), address, head, body))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(std::str::from_utf8(&answer)?)
}

/// Puts head and body in one piece: a head in several packets is slow to send, and surprises small servers.
fn request((method, path): (&str, &str), address: SocketAddr, head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Splits a response into its status and its body.
fn parse(answer: &str) -> anyhow::Result<(u16, String)> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.context("the answer has no status")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_into_status_and_body() {
        let answer = "HTTP/1.1 409 Conflict\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(answer).ok(), Some((409, "{\"a\":1}".to_owned())));
        let empty = "HTTP/1.1 429 Too Many Requests\r\n\r\n";
        assert_eq!(parse(empty).ok(), Some((429, String::new())));
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
    }
}
