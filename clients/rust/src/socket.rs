//! The WebSocket of a client.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    self, Message, Utf8Bytes,
    client::IntoClientRequest,
    error::{CapacityError, ProtocolError},
    handshake::client::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::channel::Arrival;
use crate::core::{Dial, Ending, retry_after};

/// The subprotocol, without which the server speaks another protocol.
const SUBPROTOCOL: &str = "signalbox.v1";
/// How long a close handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The library holds this much for each connection, 128 KiB by default.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// A longer text is no reason but a page for people.
const REASON_MAX: usize = 200;

const GOODBYE: CloseFrame = CloseFrame {
    code: CloseCode::Normal,
    reason: Utf8Bytes::from_static(""),
};

/// An open connection, and the frames that wait to be written to it.
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    unwritten: VecDeque<Message>,
    unwritten_bytes: usize,
    flushed: bool,
}

/// Makes the request of an upgrade.
pub(crate) fn request(url: &str, token: Option<&str>) -> Result<Request, String> {
    let invalid = |error: tungstenite::Error| format!("the URL {url} is invalid: {error}");
    let mut request = url.into_client_request().map_err(invalid)?;
    let headers = request.headers_mut();
    let protocol = HeaderValue::from_static(SUBPROTOCOL);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    if let Some(token) = token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| "the token cannot be sent in a header".to_owned())?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
    Ok(request)
}

impl Socket {
    /// Connects and upgrades.
    pub(crate) async fn open(dial: Dial) -> Result<Self, Ending> {
        let request = request(&dial.url, dial.token.as_deref()).map_err(Ending::because)?;
        let bytes_max = dial.receive_bytes_max;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(bytes_max))
            .max_frame_size(Some(bytes_max));
        let opened = connect_async_with_config(request, Some(config), true).await;
        let (stream, _) = opened.map_err(refusal)?;
        Ok(Self {
            stream,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            flushed: true,
        })
    }

    /// Puts a frame into the queue to the server.
    pub(crate) fn write(&mut self, text: String) {
        self.unwritten_bytes += text.len();
        self.unwritten.push_back(Message::text(text));
    }

    /// The bytes that wait.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    /// Writes the bytes that wait, and returns the next event. Reads nothing from the server if `reads` is false.
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self, reads: bool) -> Arrival {
        poll_fn(|context| {
            let written = self.poll_write(context);
            if reads && let Poll::Ready(arrived) = self.stream.poll_next_unpin(context) {
                // It says why frames cannot be written any more, if so.
                return Poll::Ready(arrival(arrived));
            }
            match written {
                Poll::Ready(Err(error)) => Poll::Ready(arrival(Some(Err(error)))),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), tungstenite::Error>> {
        while !self.unwritten.is_empty() {
            ready!(self.stream.poll_ready_unpin(context))?;
            if let Some(message) = self.unwritten.pop_front() {
                self.unwritten_bytes = self.unwritten_bytes.saturating_sub(message.len());
                self.flushed = false;
                self.stream.start_send_unpin(message)?;
            }
        }
        if !self.flushed {
            ready!(self.stream.poll_flush_unpin(context))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Closes with 1000, after the frames that wait.
    pub(crate) async fn close(mut self) {
        let handshake = async {
            let written = poll_fn(|context| self.poll_write(context)).await;
            if written.is_ok() && self.stream.close(Some(GOODBYE)).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        };
        // The socket is dropped in any case.
        let _ = timeout(CLOSE_TIMEOUT, handshake).await;
    }

    /// Drops the socket. An answer to the server's close frame leaves if it can at once.
    pub(crate) fn abandon(mut self) {
        let _ = self.stream.flush().now_or_never();
    }
}

fn arrival(arrived: Option<Result<Message, tungstenite::Error>>) -> Arrival {
    match arrived {
        Some(Ok(Message::Text(text))) => Arrival::Text(text),
        Some(Ok(Message::Binary(_))) => Arrival::Binary,
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Arrival::Sign,
        Some(Ok(Message::Close(Some(close)))) => Arrival::Ended(Ending {
            code: Some(close.code.into()),
            ..Ending::because(close.reason.as_str())
        }),
        Some(Ok(Message::Close(None))) => {
            Arrival::Ended(Ending::because("the server closed without a code"))
        }
        Some(Err(tungstenite::Error::Capacity(CapacityError::MessageTooLong {
            size,
            max_size,
        }))) => {
            let reason = format!("a frame of {size} bytes is over receive_bytes_max, {max_size}");
            Arrival::Ended(Ending::because(reason))
        }
        Some(Err(error)) => Arrival::Ended(Ending::because(error.to_string())),
        None => Arrival::Ended(Ending::because("the connection was lost")),
    }
}

/// How an attempt failed.
fn refusal(error: tungstenite::Error) -> Ending {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            refused(response.status(), response.headers(), body)
        }
        tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => Ending {
            unsupported: true,
            ..Ending::because(format!("the server does not speak {SUBPROTOCOL}"))
        },
        error => Ending::because(error.to_string()),
    }
}

/// How an attempt ended that was answered with a refusal.
pub(crate) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Ending {
    #[derive(Deserialize)]
    struct Body {
        error: Reason,
    }
    #[derive(Deserialize)]
    struct Reason {
        code: Option<String>,
        message: String,
    }
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    let (error_code, reason) = match serde_json::from_str::<Body>(text) {
        Ok(Body { error }) => (error.code, error.message),
        Err(_) if !text.is_empty() && text.len() <= REASON_MAX => (None, text.to_owned()),
        Err(_) => (None, status.to_string()),
    };
    let wait = headers.get(header::RETRY_AFTER);
    let wait = wait.and_then(|value| value.to_str().ok()).map(retry_after);
    Ending {
        status: Some(status.as_u16()),
        error_code,
        retry_after: wait.unwrap_or_default(),
        ..Ending::because(reason)
    }
}
