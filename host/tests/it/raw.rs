//! A WebSocket client without automatic behaviour: it answers no ping and no close, and sends frames as malformed as a
//! test needs.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Endpoint, PATIENCE};

/// The FIN bit and the opcodes of a frame's first byte; without `FIN` the frame is a fragment.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A request for an upgrade; headers can be appended.
pub(crate) fn upgrade_head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

pub(crate) struct RawClient {
    stream: BufReader<TcpStream>,
}

impl RawClient {
    pub(crate) async fn connect(endpoint: &Endpoint, user: &str) -> Self {
        Self::open(endpoint, &upgrade_head(&format!("/ws?userId={user}")))
            .await
            .0
    }

    /// Connects with the request `head`, and returns the client and the head of the response in lower case.
    pub(crate) async fn open(endpoint: &Endpoint, head: &str) -> (Self, String) {
        let mut stream = BufReader::new(endpoint.tcp().await);
        stream
            .write_all(format!("{head}\r\n").as_bytes())
            .await
            .expect("the request is sent");
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            let byte = timeout(PATIENCE, stream.read_u8()).await;
            answer.push(char::from(
                byte.expect("an answer arrives").expect("a complete head"),
            ));
        }
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        (Self { stream }, answer.to_lowercase())
    }

    /// Sends a frame that starts with `first`, masked with zeros, so the payload is unchanged.
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) {
        self.try_send(first, payload)
            .await
            .expect("the connection takes a frame");
    }

    /// Like [`send`](Self::send), for a server that may have closed the connection.
    pub(crate) async fn try_send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await
    }

    /// Sends bytes that need not be a frame.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .await
            .expect("the connection takes bytes");
    }

    /// Sends `bytes` repeatedly, and returns the code of the close frame.
    pub(crate) async fn closed_by_flood(self, bytes: Vec<u8>) -> u16 {
        let (receiving, mut sending) = self.stream.into_inner().into_split();
        let flood = tokio::spawn(async move { while sending.write_all(&bytes).await.is_ok() {} });
        let mut receiving = BufReader::new(receiving);
        let code = async {
            loop {
                match read_frame(&mut receiving).await {
                    Ok(Some((CLOSE, payload))) => break close_code(&payload),
                    Ok(Some(_)) => {}
                    other => panic!("expected a close frame, got {other:?}"),
                }
            }
        };
        let code = timeout(PATIENCE, code)
            .await
            .expect("a close frame arrives");
        flood.abort();
        code
    }

    /// Opcode and payload of the next frame, or None at the end of the stream.
    ///
    /// # Errors
    /// If the connection was reset.
    pub(crate) async fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        timeout(PATIENCE, read_frame(&mut self.stream))
            .await
            .expect("a frame arrives")
    }

    /// The code of the close frame; frames before it are skipped.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.frame().await.expect("the connection is not reset") {
                Some((CLOSE, payload)) => return close_code(&payload),
                Some(_) => {}
                None => panic!("the connection ended without a close frame"),
            }
        }
    }

    /// Waits for the end of the stream; frames before it are skipped.
    ///
    /// # Errors
    /// If the connection was reset.
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        while self.frame().await?.is_some() {}
        Ok(())
    }
}

fn close_code(payload: &[u8]) -> u16 {
    let code = payload.first_chunk().expect("a close frame with a code");
    u16::from_be_bytes(*code)
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let first = match stream.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = match stream.read_u8().await? {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).expect("a frame that fits")];
    stream.read_exact(&mut payload).await?;
    Ok(Some((first & 0x0f, payload)))
}
