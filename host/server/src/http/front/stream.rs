//! A TCP connection that reports its reads and writes to a [`HttpWatch`].

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tracing::debug;

use super::{pending::Ticket, watch::HttpWatch};

/// Bytes that the system may queue for a client that does not read, while the connection speaks HTTP.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// The stream below HTTP.
#[derive(Debug)]
pub(in crate::http) struct FrontStream {
    tcp: TcpStream,
    ticket: Ticket,
}

impl FrontStream {
    /// Takes over a new connection. The system drops the connection once the client has acknowledged nothing for
    /// `write_timeout`, even after it was closed.
    pub(super) fn new(tcp: TcpStream, ticket: Ticket, write_timeout: Duration) -> Self {
        let socket = SockRef::from(&tcp);
        let set = tcp
            // Otherwise, a burst of small frames would wait for the client's delayed acknowledgement.
            .set_nodelay(true)
            .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX))
            .and_then(|()| socket.set_tcp_user_timeout(Some(write_timeout)));
        if let Err(error) = set {
            debug!(%error, "an option of a socket is not set");
        }
        Self { tcp, ticket }
    }

    pub(super) fn watch(&self) -> &Arc<HttpWatch> {
        self.ticket.watch()
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Converts to the connection that a WebSocket uses. Frees its place among the pending sockets.
    pub(in crate::http) fn into_tcp(self) -> TcpStream {
        let socket = SockRef::from(&self.tcp);
        // 0 restores the system's default.
        let set = socket
            .set_tcp_notsent_lowat(0)
            .and_then(|()| socket.set_tcp_user_timeout(None));
        if let Err(error) = set {
            debug!(%error, "an option of a socket is not set back");
        }
        self.tcp
    }

    /// The connection, and its place among the pending sockets.
    pub(super) fn into_parts(self) -> (TcpStream, Ticket) {
        (self.tcp, self.ticket)
    }
}

impl AsyncRead for FrontStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.watch().read(bytes);
        }
        read
    }
}

impl AsyncWrite for FrontStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.tell(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, buffers);
        self.tell(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl FrontStream {
    fn tell(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.watch().cannot_write(),
            Poll::Ready(_) => self.watch().wrote(),
        }
    }
}
