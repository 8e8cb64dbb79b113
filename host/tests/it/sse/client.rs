//! A client of streams of server-sent events.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Answer, Endpoint, PATIENCE};

/// A stream, from the head of its response to its end.
pub(super) struct EventClient {
    stream: TcpStream,
    pub(super) head: Answer,
    is_chunked: bool,
    /// Bytes that were read and are not decoded.
    raw: Vec<u8>,
    /// The part of the body that is not parsed.
    body: Vec<u8>,
    /// Where frames are posted.
    pub(super) node: Endpoint,
    /// The payload of `welcome`.
    pub(super) welcome: Value,
    /// The ID of the last event that had one.
    pub(super) last_id: Option<String>,
}

/// One part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Frame(String),
    Comment,
    Close(u16, String),
    /// The body is over.
    End,
}

impl EventClient {
    /// A client of `signalbox.v1` that has read its `welcome`.
    pub(super) async fn connect(node: &Endpoint, user: &str) -> Self {
        Self::open(node, &format!("GET /sse?userId={user} HTTP/1.1")).await
    }

    /// Like [`EventClient::connect`], after the messages up to `last_id`.
    pub(super) async fn resume(node: &Endpoint, user: &str, last_id: &str) -> Self {
        let head = format!("GET /sse?userId={user} HTTP/1.1\r\nLast-Event-ID: {last_id}");
        Self::open(node, &head).await
    }

    /// Sends the request `head`, which must be accepted.
    pub(super) async fn open(node: &Endpoint, head: &str) -> Self {
        let client = Self::try_open(node, head).await;
        client.unwrap_or_else(|| panic!("{head} is refused"))
    }

    /// Like [`EventClient::open`]; `None` if it is refused, or no `welcome` comes.
    pub(super) async fn try_open(node: &Endpoint, head: &str) -> Option<Self> {
        let mut stream = TcpStream::connect(node.address).await.ok()?;
        let request = format!("{head}\r\nHost: {}\r\n\r\n", node.address);
        stream.write_all(request.as_bytes()).await.ok()?;
        let (head, raw) = timeout(PATIENCE, read_head(&mut stream))
            .await
            .expect("a head arrives")?;
        if head.status != 200 {
            return None;
        }
        let encoding = head.header("transfer-encoding");
        let mut client = Self {
            is_chunked: encoding == Some("chunked"),
            stream,
            head,
            raw,
            body: Vec::new(),
            node: *node,
            welcome: Value::Null,
            last_id: None,
        };
        let Part::Frame(welcome) = client.part().await else {
            return None;
        };
        let welcome: Value = serde_json::from_str(&welcome).expect("a frame is JSON");
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        client.welcome = welcome["payload"].clone();
        Some(client)
    }

    pub(super) fn id(&self) -> &str {
        self.welcome["connectionId"].as_str().expect("an ID")
    }

    pub(super) fn key(&self) -> &str {
        self.welcome["sendKey"].as_str().expect("a key")
    }

    pub(super) fn path(&self) -> String {
        format!("/sse/{}", self.id())
    }

    /// Posts a frame to `node`, and returns the answer.
    pub(super) async fn post_to(&self, node: &Endpoint, frame: &str) -> Answer {
        node.post(&self.path(), self.key(), &[], frame).await
    }

    /// Posts a frame that must be taken.
    pub(super) async fn send(&self, frame: &str) {
        let answer = self.post_to(&self.node, frame).await;
        assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{frame}");
    }

    /// The next part of the stream.
    pub(super) async fn part(&mut self) -> Part {
        timeout(PATIENCE, self.next_part())
            .await
            .expect("an event arrives")
    }

    /// The next frame, without the comments before it.
    pub(super) async fn text(&mut self) -> String {
        loop {
            match self.part().await {
                Part::Comment => {}
                Part::Frame(frame) => return frame,
                other => panic!("expected a frame, got {other:?}"),
            }
        }
    }

    pub(super) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("a frame is JSON")
    }

    /// The code of the close event, after which the body must be over; everything before it is skipped.
    pub(super) async fn closed(&mut self) -> u16 {
        loop {
            match self.part().await {
                Part::Close(code, _) => {
                    assert_eq!(self.part().await, Part::End);
                    return code;
                }
                Part::End => panic!("the stream ended without a close event"),
                Part::Comment | Part::Frame(_) => {}
            }
        }
    }

    async fn next_part(&mut self) -> Part {
        loop {
            if let Some(end) = find(&self.body, b"\n\n") {
                let block: Vec<u8> = self.body.drain(..end + 2).collect();
                let block = String::from_utf8(block).expect("a stream is UTF-8");
                return self.parse(block.trim_end_matches('\n'));
            }
            if !self.read().await {
                return Part::End;
            }
        }
    }

    fn parse(&mut self, block: &str) -> Part {
        let (mut data, mut kind) = (Vec::new(), "");
        for line in block.split('\n') {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("", _) => {}
                ("data", line) => data.push(line),
                ("event", name) => kind = name,
                ("id", id) => self.last_id = Some(id.to_owned()),
                other => panic!("an unknown field: {other:?}"),
            }
        }
        match (kind, data.join("\n")) {
            ("", data) if data.is_empty() => Part::Comment,
            ("", data) => Part::Frame(data),
            ("close", data) => {
                let close: Value = serde_json::from_str(&data).expect("JSON");
                let code = close["code"].as_u64().expect("a code");
                let reason = close["reason"].as_str().expect("a reason");
                Part::Close(code as u16, reason.to_owned())
            }
            other => panic!("an unknown event: {other:?}"),
        }
    }

    /// Reads more of the body. Returns `false` once it is over, or cut off.
    async fn read(&mut self) -> bool {
        loop {
            if !self.is_chunked && !self.raw.is_empty() {
                self.body.append(&mut self.raw);
                return true;
            }
            if self.is_chunked
                && let Some(is_more) = self.decode_chunk()
            {
                return is_more;
            }
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer).await {
                Ok(read) if read > 0 => self.raw.extend_from_slice(&buffer[..read]),
                _ => return false,
            }
        }
    }

    /// Decodes the next chunk, as proxies make them. Returns whether it is not the last one; `None` if it is incomplete.
    fn decode_chunk(&mut self) -> Option<bool> {
        let head = find(&self.raw, b"\r\n")?;
        let size = std::str::from_utf8(&self.raw[..head]).expect("a size");
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        let end = head + 2 + size + 2;
        if self.raw.len() < end {
            return None;
        }
        self.body
            .extend_from_slice(&self.raw[head + 2..head + 2 + size]);
        self.raw.drain(..end);
        Some(size > 0)
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<(Answer, Vec<u8>)> {
    let mut raw = Vec::new();
    loop {
        if let Some(end) = find(&raw, b"\r\n\r\n") {
            let rest = raw.split_off(end + 4);
            let head = String::from_utf8(raw).expect("a head is text");
            return Some((Answer::read(&head), rest));
        }
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.ok()?;
        if read == 0 {
            return None;
        }
        raw.extend_from_slice(&buffer[..read]);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|bytes| bytes == wanted)
}
