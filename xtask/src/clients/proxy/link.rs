//! One connection through the proxy.

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;

use super::commands::{Answer, Direction, Opening, Slowness};
use super::frames::{WireFrame, take_frame, take_head, text_frame};
use super::{Shared, lock};

/// How often each direction looks for changes.
const TICK: Duration = Duration::from_millis(10);

/// Bytes that are written at a time if their rate is limited.
const CHUNK: usize = 64;

/// A connection of a client. It is live until the client or the proxy ends it.
pub(super) struct Link {
    client: TcpStream,
    is_over: AtomicBool,
    control: Mutex<Control>,
}

/// The changes that a case has asked for.
#[derive(Default)]
pub(super) struct Control {
    pub(super) stalled: Option<Direction>,
    pub(super) slowness: Slowness,
    pub(super) drop: Vec<String>,
    inject: Vec<Vec<u8>>,
    replies: Vec<(String, Value)>,
    last: Option<Vec<u8>>,
    half_closed: bool,
}

impl Control {
    /// Answers the next frames that contain `to`.
    pub(super) fn reply(&mut self, to: &str, times: usize, with: &Value) {
        let replies = std::iter::repeat_n((to.to_owned(), with.clone()), times);
        self.replies.extend(replies);
    }

    /// Whether the proxy answers this frame of the client.
    fn answers(&mut self, text: &str) -> bool {
        let index = self.replies.iter().position(|(to, _)| text.contains(to));
        let Some(index) = index else {
            return false;
        };
        let (_, mut answer) = self.replies.remove(index);
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        answer["payload"]["id"] = frame["id"].clone();
        self.inject.push(text_frame(&answer.to_string()));
        true
    }
}

impl Link {
    pub(super) fn new(client: TcpStream) -> Self {
        Self {
            client,
            is_over: AtomicBool::new(false),
            control: Mutex::default(),
        }
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    pub(super) fn is_live(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Resets the connection when its threads have ended.
    pub(super) fn cut(&self) {
        // It fails only if the connection is gone already.
        let _ = set_socket_linger(&self.client, Some(Duration::ZERO));
        self.end();
    }

    pub(super) fn half_close(&self) {
        self.control().half_closed = true;
        let _ = self.client.shutdown(Shutdown::Write);
    }

    /// Sends the client a frame between two others.
    pub(super) fn inject(&self, frame: Vec<u8>) {
        self.control().inject.push(frame);
    }

    pub(super) fn repeat_last(&self) {
        let mut control = self.control();
        if let Some(last) = control.last.clone() {
            control.inject.push(last);
        }
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_stalled(&self, direction: Direction) -> bool {
        let stalled = self.control().stalled;
        stalled == Some(direction) || stalled == Some(Direction::Both)
    }

    /// Writes as slowly as the case wants.
    fn write(&self, mut to: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        let Slowness {
            delay_ms,
            jitter_ms,
            bytes_per_second,
            split,
        } = self.control().slowness.clone();
        // The length of a frame is random enough.
        let jitter = jitter_ms * (bytes.len() as u64 % 8) / 8;
        thread::sleep(Duration::from_millis(delay_ms + jitter));
        let size = match (bytes_per_second, split) {
            (0, false) => bytes.len(),
            (0, true) => bytes.len().div_ceil(2),
            _ => CHUNK,
        };
        for chunk in bytes.chunks(size.max(1)) {
            to.write_all(chunk)?;
            if let Some(ms) = (CHUNK as u64 * 1000).checked_div(bytes_per_second) {
                thread::sleep(Duration::from_millis(ms));
            } else if split {
                thread::sleep(TICK);
            }
        }
        Ok(())
    }
}

/// Serves a connection until it is over.
pub(super) fn run(link: &Arc<Link>, shared: &Arc<Shared>, opening: &Opening) {
    // Both fail only if the client is gone already, and then so does the next read.
    let _ = link.client.set_nodelay(true);
    let _ = link.client.set_read_timeout(Some(TICK));
    match opening {
        Opening::Refuse => link.cut(),
        Opening::Silent => wait_for_the_client(link),
        Opening::Reset => {
            read_head(link, shared);
            link.cut();
        }
        Opening::Answer(answer) => {
            read_head(link, shared);
            // If the client is gone, there is nobody to answer.
            let _ = (&link.client).write_all(text_of(answer).as_bytes());
            let _ = link.client.shutdown(Shutdown::Write);
            wait_for_the_client(link);
        }
        Opening::Forward | Opening::Mute | Opening::Subprotocol(_) => {
            forward(link, shared, opening)
        }
    }
    link.end();
    // The connection is closed with its last owner.
    lock(&shared.links).retain(|link| link.is_live());
}

fn text_of(answer: &Answer) -> String {
    let headers = answer.headers.iter();
    let headers: String = headers
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let Answer { status, body, .. } = answer;
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Status\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Reads until the client closes, or the proxy ends.
fn wait_for_the_client(link: &Link) {
    let mut ignored = Vec::new();
    while link.is_live() && read(&link.client, &mut ignored) {}
}

fn read_head(link: &Link, shared: &Shared) -> Option<String> {
    let mut buffer = Vec::new();
    while link.is_live() && read(&link.client, &mut buffer) {
        if let Some(head) = take_head(&mut buffer) {
            lock(&shared.seen).upgrade(&head);
            return Some(head);
        }
    }
    None
}

/// Reads what is there. Returns `false` at the end.
fn read(mut from: &TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 16 * 1024];
    match from.read(&mut bytes) {
        Ok(0) => false,
        Ok(length) => {
            buffer.extend_from_slice(&bytes[..length]);
            true
        }
        Err(error) => matches!(
            error.kind(),
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
        ),
    }
}

fn forward(link: &Arc<Link>, shared: &Arc<Shared>, opening: &Opening) {
    let address = *lock(&shared.server);
    let Some(head) = read_head(link, shared) else {
        return;
    };
    let Ok(server) = TcpStream::connect(address) else {
        return link.cut();
    };
    let prepared = server
        .set_nodelay(true)
        .and_then(|()| server.set_read_timeout(Some(TICK)))
        .and_then(|()| (&server).write_all(head.as_bytes()));
    if prepared.is_err() {
        return link.cut();
    }
    thread::scope(|scope| {
        scope.spawn(|| to_server(link, shared, &server));
        to_client(link, shared, &server, opening);
    });
}

fn to_server(link: &Link, shared: &Shared, server: &TcpStream) {
    let mut buffer = Vec::new();
    while link.is_live() {
        if !read(&link.client, &mut buffer) {
            return link.end();
        }
        while !link.is_stalled(Direction::ToServer)
            && let Some(frame) = take_frame(&mut buffer)
        {
            if let Some(text) = frame.text() {
                lock(&shared.seen).note_client(text);
                if link.control().answers(text) {
                    lock(&shared.seen).answered(text);
                    continue;
                }
            }
            if link.write(server, &frame.bytes).is_err() {
                return link.end();
            }
        }
    }
}

fn to_client(link: &Link, shared: &Shared, server: &TcpStream, opening: &Opening) {
    let mut buffer = Vec::new();
    let mut is_upgraded = None;
    while link.is_live() {
        let is_open = read(server, &mut buffer);
        if is_upgraded.is_none()
            && let Some(head) = take_head(&mut buffer)
        {
            is_upgraded = Some(head.starts_with("HTTP/1.1 101 "));
            let head = with_subprotocol(&head, opening);
            if link.write(&link.client, head.as_bytes()).is_err() {
                return link.end();
            }
        }
        let is_there = match is_upgraded {
            Some(true) if matches!(opening, Opening::Mute) => true,
            Some(true) => pass(link, shared, &mut buffer),
            // The body of an answer.
            Some(false) => link.write(&link.client, &mem::take(&mut buffer)).is_ok(),
            None => true,
        };
        if !is_there {
            return link.end();
        }
        if !is_open && !link.is_stalled(Direction::ToClient) {
            let _ = link.client.shutdown(Shutdown::Write);
            return wait_for_the_client(link);
        }
    }
}

/// Passes complete frames on to the client. Returns `false` if the client is gone.
fn pass(link: &Link, shared: &Shared, buffer: &mut Vec<u8>) -> bool {
    loop {
        let injected = mem::take(&mut link.control().inject);
        if !injected
            .iter()
            .all(|frame| link.write(&link.client, frame).is_ok())
        {
            return false;
        }
        if link.is_stalled(Direction::ToClient) || link.control().half_closed {
            return true;
        }
        let Some(frame) = take_frame(buffer) else {
            return true;
        };
        if let Some(text) = frame.text() {
            lock(&shared.seen).note_server(text);
        }
        if !is_dropped(link, &frame) && link.write(&link.client, &frame.bytes).is_err() {
            return false;
        }
    }
}

/// Whether the case wants this frame dropped. Remembers a message otherwise.
fn is_dropped(link: &Link, frame: &WireFrame) -> bool {
    let Some(text) = frame.text() else {
        return false;
    };
    let mut control = link.control();
    if let Some(index) = control.drop.iter().position(|part| text.contains(part)) {
        control.drop.remove(index);
        return true;
    }
    if text.contains("\"senderId\"") {
        control.last = Some(frame.bytes.clone());
    }
    false
}

/// The head of the answer as the case wants it.
fn with_subprotocol(head: &str, opening: &Opening) -> String {
    let Opening::Subprotocol(named) = opening else {
        return head.to_owned();
    };
    let others = head.split_inclusive("\r\n").filter(|line| {
        let is_end = *line == "\r\n";
        !is_end
            && !line
                .to_ascii_lowercase()
                .starts_with("sec-websocket-protocol:")
    });
    let mut head: String = others.collect();
    if let Some(name) = named {
        head.push_str(&format!("Sec-WebSocket-Protocol: {name}\r\n"));
    }
    head.push_str("\r\n");
    head
}
