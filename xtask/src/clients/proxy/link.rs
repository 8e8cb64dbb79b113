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

use super::commands::{Direction, Opening, Slowness};
use super::frames::{take_frame, take_head};
use super::post;
use super::request::{Kind, Request, last_answer, without};
use super::wire::{Extra, Transport, WireFrame};
use super::{Shared, lock};

/// How often each direction looks for changes.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Bytes that are written at a time if their rate is limited.
const CHUNK: usize = 64;

/// A connection of a client. It is live until the client or the proxy ends it.
pub(super) struct Link {
    client: TcpStream,
    is_over: AtomicBool,
    /// Whether the server's frames come as events on this connection.
    is_stream: AtomicBool,
    control: Mutex<Control>,
}

/// The changes that a case has asked for.
#[derive(Default)]
pub(super) struct Control {
    pub(super) stalled: Option<Direction>,
    pub(super) slowness: Slowness,
    pub(super) drop: Vec<String>,
    inject: Vec<Extra>,
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
    pub(super) fn answers(&mut self, text: &str) -> bool {
        let index = self.replies.iter().position(|(to, _)| text.contains(to));
        let Some(index) = index else {
            return false;
        };
        let (_, mut answer) = self.replies.remove(index);
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        answer["payload"]["id"] = frame["id"].clone();
        self.inject.push(Extra::Text(answer.to_string()));
        true
    }
}

impl Link {
    pub(super) fn new(client: TcpStream) -> Self {
        Self {
            client,
            is_over: AtomicBool::new(false),
            is_stream: AtomicBool::new(false),
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
    pub(super) fn inject(&self, extra: Extra) {
        self.control().inject.push(extra);
    }

    pub(super) fn is_stream(&self) -> bool {
        self.is_stream.load(Ordering::Relaxed)
    }

    pub(super) fn client(&self) -> &TcpStream {
        &self.client
    }

    pub(super) fn repeat_last(&self) {
        let mut control = self.control();
        if let Some(last) = control.last.clone() {
            control.inject.push(Extra::Bytes(last));
        }
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stalled(&self, direction: Direction) -> bool {
        let stalled = self.control().stalled;
        stalled == Some(direction) || stalled == Some(Direction::Both)
    }

    /// Writes as slowly as the case wants.
    pub(super) fn write(&self, mut to: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
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
        _ => serve(link, shared, opening),
    }
    link.end();
    // The connection is closed with its last owner.
    lock(&shared.links).retain(|link| link.is_live());
}

/// Reads a request, and answers it as the case wants.
fn serve(link: &Arc<Link>, shared: &Arc<Shared>, opening: &Opening) {
    let mut buffer = Vec::new();
    let Some(request) = read_request(link, &mut buffer) else {
        return;
    };
    if request.kind == Kind::Post {
        return post::serve(link, shared, &request, buffer);
    }
    lock(&shared.seen).begun(&request);
    let of_kind = match opening {
        Opening::Forward => shared.opening_of(request.kind),
        other => other.clone(),
    };
    match &of_kind {
        Opening::Refuse | Opening::Reset => link.cut(),
        Opening::Silent => wait_for_the_client(link),
        Opening::Answer(answer) => {
            // If the client is gone, there is nobody to answer.
            let _ = (&link.client).write_all(&answer.bytes());
            let _ = link.client.shutdown(Shutdown::Write);
            wait_for_the_client(link);
        }
        Opening::Delay(ms) => {
            thread::sleep(Duration::from_millis(*ms));
            forward(link, shared, &request, &Opening::Forward);
        }
        Opening::Forward | Opening::Mute | Opening::Subprotocol(_) | Opening::Lose(_) => {
            forward(link, shared, &request, &of_kind);
        }
    }
}

/// Reads until the client closes, or the proxy ends.
pub(super) fn wait_for_the_client(link: &Link) {
    let mut ignored = Vec::new();
    while link.is_live() && read(&link.client, &mut ignored) {}
}

/// Reads the head of a request. What follows it stays in `buffer`.
fn read_request(link: &Link, buffer: &mut Vec<u8>) -> Option<Request> {
    while link.is_live() && read(&link.client, buffer) {
        if let Some(head) = take_head(buffer) {
            return Some(Request::new(head));
        }
    }
    None
}

/// Reads what is there. Returns `false` at the end.
pub(super) fn read(mut from: &TcpStream, buffer: &mut Vec<u8>) -> bool {
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

fn forward(link: &Arc<Link>, shared: &Arc<Shared>, request: &Request, opening: &Opening) {
    let is_stream = request.kind == Kind::Stream;
    link.is_stream.store(is_stream, Ordering::Relaxed);
    let head = if is_stream {
        request.once()
    } else {
        request.head.clone()
    };
    let Some(server) = connect(shared, head.as_bytes()) else {
        return link.cut();
    };
    thread::scope(|scope| {
        scope.spawn(|| to_server(link, shared, &server));
        to_client(link, shared, &server, opening);
    });
}

/// Connects to the server, and sends it the beginning of a request.
pub(super) fn connect(shared: &Shared, request: &[u8]) -> Option<TcpStream> {
    let address = *lock(&shared.server);
    let server = TcpStream::connect(address).ok()?;
    server.set_nodelay(true).ok()?;
    server.set_read_timeout(Some(TICK)).ok()?;
    (&server).write_all(request).ok()?;
    Some(server)
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
            if let Some(text) = &frame.text {
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
    let transport = if link.is_stream() {
        Transport::Events
    } else {
        Transport::WebSocket
    };
    let mut buffer = Vec::new();
    let mut has_frames = None;
    while link.is_live() {
        let is_open = read(server, &mut buffer);
        if has_frames.is_none()
            && let Some(head) = take_head(&mut buffer)
        {
            let status = head.split(' ').nth(1).unwrap_or_default();
            has_frames = Some(status == transport.accepted());
            let head = match transport {
                Transport::WebSocket => with_subprotocol(&head, opening),
                Transport::Events => last_answer(&head),
            };
            if link.write(&link.client, head.as_bytes()).is_err() {
                return link.end();
            }
        }
        let is_there = match has_frames {
            Some(true) if matches!(opening, Opening::Mute) => true,
            Some(true) => pass(link, shared, transport, &mut buffer),
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
fn pass(link: &Link, shared: &Shared, transport: Transport, buffer: &mut Vec<u8>) -> bool {
    loop {
        let injected = mem::take(&mut link.control().inject);
        for extra in injected {
            let ends = transport == Transport::Events && matches!(extra, Extra::Close { .. });
            if link.write(&link.client, &transport.bytes(extra)).is_err() {
                return false;
            }
            if ends {
                let _ = link.client.shutdown(Shutdown::Write);
                return false;
            }
        }
        if link.is_stalled(Direction::ToClient) || link.control().half_closed {
            return true;
        }
        let Some(frame) = transport.take(buffer) else {
            return true;
        };
        if let Some(text) = &frame.text {
            lock(&shared.seen).note_server(text);
        }
        if !is_dropped(link, &frame) && link.write(&link.client, &frame.bytes).is_err() {
            return false;
        }
    }
}

/// Whether the case wants this frame dropped. Remembers a message otherwise.
fn is_dropped(link: &Link, frame: &WireFrame) -> bool {
    let Some(text) = &frame.text else {
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
    let others = without(head, &["sec-websocket-protocol"]);
    let mut head = others.trim_end_matches("\r\n").to_owned() + "\r\n";
    if let Some(name) = named {
        head.push_str(&format!("Sec-WebSocket-Protocol: {name}\r\n"));
    }
    head.push_str("\r\n");
    head
}
