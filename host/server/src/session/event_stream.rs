//! A stream of server-sent events on a TCP connection, and the frames that its client posts by other requests.

mod encoder;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use encoder::{COMMENT, EventEncoder, close_event};
use signalbox_router::{FrameEncoder, PostReceiver, SocketSink};
use signalbox_telemetry::metrics::{Metrics, PostResult};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tracing::debug;

use super::socket::{Incoming, Socket, SocketError};

/// The size of one read. A client sends nothing after its request.
const READ_BYTES: usize = 512;

/// The most bytes after the request that are discarded.
const DISCARDED_BYTES_MAX: u64 = 64 << 10;

/// The code of a stream that its client ended, as in a close frame of a page that is left (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;

/// The server's side of a stream of server-sent events, after the head of the response.
#[derive(Debug)]
pub struct EventStreamSocket {
    receiving: OwnedReadHalf,
    sending: Option<OwnedWriteHalf>,
    posts: PostReceiver,
    metrics: Arc<Metrics>,
    /// The bytes of the frames that were posted.
    received: u64,
    /// The bytes that the client sent after its request.
    discarded: u64,
    ended: bool,
}

/// The sending half.
#[derive(Debug)]
struct EventSink {
    sending: OwnedWriteHalf,
    encoder: EventEncoder,
}

impl EventStreamSocket {
    /// A stream on `tcp`, to which the head of the response was written. Its client sends by `posts`. The system ends the
    /// connection once its peer has acknowledged nothing for `silence_max`.
    pub fn new(
        tcp: TcpStream,
        posts: PostReceiver,
        silence_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        if let Err(error) = SockRef::from(&tcp).set_tcp_user_timeout(Some(silence_max)) {
            debug!(%error, "an option of a socket is not set");
        }
        let (receiving, sending) = tcp.into_split();
        Self {
            receiving,
            sending: Some(sending),
            posts,
            metrics,
            received: 0,
            discarded: 0,
            ended: false,
        }
    }

    /// Ready once the client has closed its side, or the connection is broken.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, SocketError>> {
        let mut buffer = [0; READ_BYTES];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut self.receiving).poll_read(cx, &mut read))?;
            let read = read.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(Incoming::Close {
                    code: GOING_AWAY,
                    reason: "the client ended the stream".to_owned(),
                }));
            }
            self.discarded += read as u64;
            if self.discarded > DISCARDED_BYTES_MAX {
                let reason = "the client sends on a stream of events".to_owned();
                return Poll::Ready(Err(SocketError::Broken(reason)));
            }
        }
    }

    /// Takes no more frames.
    fn close_posts(&self) {
        let lost = self.posts.close();
        self.metrics.posts.of(PostResult::Lost).add(lost as u64);
    }
}

impl Socket for EventStreamSocket {
    const CLIENT_ANSWERS: bool = false;

    fn ping() -> Bytes {
        Bytes::from_static(COMMENT)
    }

    fn close(code: u16, reason: &str) -> Bytes {
        close_event(code, reason)
    }

    fn send_key(&self) -> Option<String> {
        Some(self.posts.key().to_text())
    }

    fn take_sink(&mut self) -> Option<Box<dyn SocketSink>> {
        Some(Box::new(EventSink {
            sending: self.sending.take()?,
            encoder: EventEncoder::default(),
        }))
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.receiving.as_ref().poll_write_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = self.posts.poll_next(cx) {
            self.received += frame.len() as u64;
            return Poll::Ready(Some(Ok(Incoming::Text(frame))));
        }
        let end = ready!(self.poll_end(cx));
        self.ended = true;
        self.close_posts();
        Poll::Ready(Some(end))
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn is_midway(&self) -> bool {
        false
    }

    fn kept_bytes(&self) -> usize {
        0
    }

    fn skip_messages(&mut self) {
        self.close_posts();
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_end(cx).map(drop)
    }

    fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.posts.set_frame_bytes_max(bytes);
    }
}

impl Drop for EventStreamSocket {
    fn drop(&mut self) {
        self.close_posts();
    }
}

impl SocketSink for EventSink {
    fn try_write(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        SocketSink::try_write(&self.sending, first, second)
    }

    fn encoder(&mut self) -> Option<&mut dyn FrameEncoder> {
        Some(&mut self.encoder)
    }
}
