//! The opening handshake of RFC 6455 §4 for both sides, written by hand: a request line, a few headers, one hash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest as _, Sha1};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::frame::MaskKeys;

/// The longest head of a request or response, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// RFC 6455 §1.3: the server hashes it together with the client's key to prove that it understood the upgrade.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a handshake did not lead to a WebSocket connection.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The peer closed, or the socket failed.
    #[error("the connection broke during the WebSocket handshake: {0}")]
    Io(#[from] std::io::Error),
    /// More than 8 KiB without an empty line.
    #[error("the head of the handshake is over {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    /// The request is not a WebSocket upgrade. The text names what is missing.
    #[error("not a WebSocket upgrade: {0}")]
    BadRequest(&'static str),
    /// The server's response was not an upgrade. Holds its status line.
    #[error(
        "the server refused the upgrade with `{0}`; check the path, the user and the server's limits"
    )]
    Refused(String),
    /// The server's `Sec-WebSocket-Accept` does not belong to our key.
    #[error("the server's Sec-WebSocket-Accept does not belong to the key that was sent")]
    WrongAccept,
}

/// An upgrade request that was accepted.
#[derive(Debug)]
pub struct Upgrade {
    /// The request's target, e.g. `/ws?userId=a`.
    pub target: String,
    /// Bytes that arrived after the head: the first frames.
    pub rest: Vec<u8>,
}

/// Server side: reads the request and answers with 101 if it is an upgrade, otherwise with 400.
///
/// # Errors
/// Returns an error if the request is not an upgrade or is too large, or if the socket fails.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
) -> Result<Upgrade, HandshakeError> {
    let answer = match read_head(stream).await {
        Ok((head, rest)) => {
            accept_answer(&head).map(|(target, answer)| (Upgrade { target, rest }, answer))
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok((upgrade, answer)) => {
            stream.write_all(answer.as_bytes()).await?;
            Ok(upgrade)
        }
        Err(error) => {
            if !matches!(error, HandshakeError::Io(_)) {
                let body = error.to_string();
                let head = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length:";
                stream
                    .write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes())
                    .await?;
                stream.shutdown().await?;
            }
            Err(error)
        }
    }
}

/// Client side: requests an upgrade of `target` from `host`, offers the subprotocol `protocol`, and returns the bytes that
/// followed the server's response.
///
/// # Errors
/// Returns an error if the server refuses or sends an invalid handshake response, or if the socket fails.
pub async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    target: &str,
    protocol: Option<&str>,
) -> Result<Vec<u8>, HandshakeError> {
    let mut keys = MaskKeys::random();
    let nonce = [
        keys.next_key(),
        keys.next_key(),
        keys.next_key(),
        keys.next_key(),
    ];
    let key = BASE64.encode(nonce.as_flattened());
    let protocol = protocol.map_or_else(String::new, |protocol| {
        format!("Sec-WebSocket-Protocol: {protocol}\r\n")
    });
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(stream).await?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(HandshakeError::Refused(status.to_owned()));
    }
    if header(&head, "sec-websocket-accept") != Some(accept_key(&key).as_str()) {
        return Err(HandshakeError::WrongAccept);
    }
    Ok(rest)
}

/// Checks the request's head. Returns its target and the response that completes the handshake.
fn accept_answer(head: &str) -> Result<(String, String), HandshakeError> {
    let bad = HandshakeError::BadRequest;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (Some("GET"), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next())
    else {
        return Err(bad("the request line is not `GET <target> HTTP/1.1`"));
    };
    if !header(head, "upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(bad("the header `Upgrade: websocket` is missing"));
    }
    if header(head, "sec-websocket-version") != Some("13") {
        return Err(bad("the header `Sec-WebSocket-Version: 13` is missing"));
    }
    let key = header(head, "sec-websocket-key")
        .ok_or(bad("the header `Sec-WebSocket-Key` is missing"))?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    );
    Ok((target.to_owned(), answer))
}

fn accept_key(key: &str) -> String {
    let hash = Sha1::new()
        .chain_update(key.as_bytes())
        .chain_update(ACCEPT_GUID)
        .finalize();
    BASE64.encode(hash)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    pairs
        .into_iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Reads up to the empty line. Returns the head, and the bytes after it, which belong to the first frames.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<(String, Vec<u8>), HandshakeError> {
    let mut bytes = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(HandshakeError::HeadTooLarge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_of_rfc_6455_is_computed() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[tokio::test]
    async fn both_sides_agree_and_keep_the_bytes_after_the_head() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move {
            let upgrade = accept(&mut server).await;
            server.write_all(b"later").await.map(|()| upgrade)
        });
        let rest = request(&mut client, "localhost", "/ws?userId=a&peer=b", None).await;
        assert!(rest.is_ok_and(|rest| b"later".starts_with(&rest)));
        let upgrade = serving
            .await
            .expect("the server task ends")
            .expect("the pipe is open")
            .expect("an upgrade");
        assert_eq!(upgrade.target, "/ws?userId=a&peer=b");
    }

    #[tokio::test]
    async fn a_refusal_names_the_status_line() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let answer = server
            .write_all(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
            .await;
        assert!(answer.is_ok());
        let refused = request(&mut client, "localhost", "/ws", None).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("429 Too Many Requests")));
    }
}
