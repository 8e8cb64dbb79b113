//! The client's side of the opening handshake (RFC 6455 §4). The library's own would lose the bytes that follow the
//! response once its stream is taken apart.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// The longest head of a response, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Requests an upgrade of `target` from `host`, offers the subprotocol `protocol`, and returns the bytes that followed the
/// server's response.
///
/// # Errors
/// Returns an error if the server refuses or sends an invalid handshake response, or if the socket fails.
pub(crate) async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    target: &str,
    protocol: Option<&str>,
) -> anyhow::Result<Vec<u8>> {
    let key = generate_key();
    let protocol = protocol.map_or_else(String::new, |protocol| {
        format!("Sec-WebSocket-Protocol: {protocol}\r\n")
    });
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}\r\n"
    );
    let (head, rest) = async {
        stream.write_all(request.as_bytes()).await?;
        read_head(stream).await
    }
    .await
    .context("the connection broke during the WebSocket handshake")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        bail!(
            "the server refused the upgrade with `{status}`; check the path, the user and the server's limits"
        );
    }
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let accept = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"));
    ensure!(
        accept.is_some_and(|(_, value)| value.trim() == derive_accept_key(key.as_bytes())),
        "the server's Sec-WebSocket-Accept does not belong to the key that was sent"
    );
    Ok(rest)
}

/// Reads up to the empty line. Returns the head, and the bytes after it, which belong to the first frames.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> anyhow::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(512);
    loop {
        ensure!(
            stream.read_buf(&mut bytes).await? > 0,
            "unexpected end of file"
        );
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        ensure!(
            bytes.len() <= HEAD_BYTES_MAX,
            "the head of the handshake is over {HEAD_BYTES_MAX} bytes"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests an upgrade from a server that answers with `answer`, in which `KEY` stands for the right key.
    async fn answered_with(answer: &'static str) -> anyhow::Result<Vec<u8>> {
        let (mut client, mut server) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let (head, _) = read_head(&mut server).await?;
            let key = head
                .split("Key: ")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            let key = derive_accept_key(key.unwrap_or_default().as_bytes());
            let answer = answer.replace("KEY", &key);
            anyhow::Ok(server.write_all(answer.as_bytes()).await?)
        });
        request(&mut client, "localhost", "/ws?userId=a", None).await
    }

    #[tokio::test]
    async fn the_bytes_after_the_head_are_kept() {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: KEY\r\n\r\nlater";
        assert_eq!(
            answered_with(answer).await.ok().as_deref(),
            Some(&b"later"[..])
        );
    }

    #[tokio::test]
    async fn a_refusal_names_the_status_line_and_a_wrong_key_is_noticed() {
        for (answer, error) in [
            (
                "HTTP/1.1 429 Too Many Requests\r\n\r\n",
                "429 Too Many Requests",
            ),
            (
                "HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x\r\n\r\n",
                "does not belong",
            ),
        ] {
            let refused = answered_with(answer).await.expect_err(error);
            assert!(refused.to_string().contains(error), "{refused}");
        }
    }
}
