//! Frames of clients with server-sent events. Each is a request, and has a connection of its own.

use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::commands::{Answer, Direction, Opening};
use super::frames::take_head;
use super::link::{Link, TICK, connect, read, wait_for_the_client};
use super::request::{Request, last_answer};
use super::{Shared, lock};

/// A request that is under way. It ends with this value, before the client can have its answer.
struct Posting<'s>(&'s Shared);

impl<'s> Posting<'s> {
    fn new(shared: &'s Shared) -> Self {
        lock(&shared.seen).posting();
        Self(shared)
    }
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        lock(&self.0.seen).posted();
    }
}

/// Reads the body, and answers the request as the case wants. `buffer` has the beginning of the body.
pub(super) fn serve(link: &Link, shared: &Shared, request: &Request, mut buffer: Vec<u8>) {
    let posting = Posting::new(shared);
    let length = request.header("content-length");
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    while buffer.len() < length && link.is_live() && read(link.client(), &mut buffer) {}
    if buffer.len() >= length {
        let answer = answer_to(link, shared, request, &buffer);
        drop(posting);
        if let Some(answer) = answer {
            // If the client is gone, there is nobody to answer.
            let _ = link.write(link.client(), &answer);
            let _ = link.client().shutdown(Shutdown::Write);
            wait_for_the_client(link);
        }
    }
}

/// The answer to a frame. None if the client gets none any more.
fn answer_to(link: &Link, shared: &Shared, request: &Request, body: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(body);
    lock(&shared.seen).note_client(&text);
    let streams = || {
        let links = lock(&shared.links);
        let streams = links.iter().filter(|link| link.is_stream());
        streams.cloned().collect::<Vec<Arc<Link>>>()
    };
    let is_stalled = |stream: &Arc<Link>| stream.is_stalled(Direction::ToServer);
    while streams().iter().any(is_stalled) {
        if !link.is_live() || !is_there(link) {
            return None;
        }
        thread::sleep(TICK);
    }
    match shared.opening_of(request.kind) {
        Opening::Refuse | Opening::Reset => {
            link.cut();
            None
        }
        Opening::Silent => {
            wait_for_the_client(link);
            None
        }
        Opening::Answer(answer) => Some(answer.bytes()),
        _ if streams().iter().any(|link| link.control().answers(&text)) => {
            lock(&shared.seen).answered(&text);
            Some(Answer::taken().bytes())
        }
        Opening::Delay(ms) => {
            thread::sleep(Duration::from_millis(ms));
            forward(link, shared, request, body)
        }
        Opening::Lose(answer) => forward(link, shared, request, body).map(|_| answer.bytes()),
        Opening::Forward | Opening::Mute | Opening::Subprotocol(_) => {
            forward(link, shared, request, body)
        }
    }
}

/// Whether the client still waits for its answer.
fn is_there(link: &Link) -> bool {
    read(link.client(), &mut Vec::new())
}

/// The server's answer.
fn forward(link: &Link, shared: &Shared, request: &Request, body: &[u8]) -> Option<Vec<u8>> {
    let request = [request.once().as_bytes(), body].concat();
    let mut answer = Vec::new();
    let head = connect(shared, &request).and_then(|server| {
        while link.is_live() && read(&server, &mut answer) {}
        take_head(&mut answer)
    });
    if head.is_none() {
        link.cut();
    }
    Some([last_answer(&head?).as_bytes(), &answer].concat())
}
