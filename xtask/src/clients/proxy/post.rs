//! Frames of clients with server-sent events. Each is a request, and has a connection of its own.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::commands::{Answer, Direction, Opening};
use super::frames::take_head;
use super::link::{Link, TICK, connect, give, read, wait_for_the_client};
use super::request::{Request, last_answer};
use super::{Shared, lock};

/// Reads the body, and answers the request as the case wants. `buffer` has the beginning of the body.
pub(super) fn serve(link: &Link, shared: &Shared, request: &Request, mut buffer: Vec<u8>) {
    let length = request.header("content-length");
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    lock(&shared.seen).posting();
    while buffer.len() < length && link.is_live() && read(link.client(), &mut buffer) {}
    if buffer.len() >= length {
        answer(link, shared, request, &buffer);
    }
    lock(&shared.seen).posted();
}

fn answer(link: &Link, shared: &Shared, request: &Request, body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    lock(&shared.seen).note_client(&text);
    let streams = || {
        let links = lock(&shared.links);
        let streams = links.iter().filter(|link| link.is_stream());
        streams.cloned().collect::<Vec<Arc<Link>>>()
    };
    while streams()
        .iter()
        .any(|link| link.is_stalled(Direction::ToServer))
    {
        if !link.is_live() {
            return;
        }
        thread::sleep(TICK);
    }
    match shared.opening_of(request.kind) {
        Opening::Refuse | Opening::Reset => link.cut(),
        Opening::Silent => wait_for_the_client(link),
        Opening::Answer(answer) => end(link, &answer),
        _ if streams().iter().any(|link| link.control().answers(&text)) => {
            lock(&shared.seen).answered(&text);
            end(link, &Answer::taken());
        }
        Opening::Delay(ms) => {
            thread::sleep(Duration::from_millis(ms));
            forward(link, shared, request, body, None);
        }
        Opening::Lose(answer) => forward(link, shared, request, body, Some(&answer)),
        Opening::Forward | Opening::Mute | Opening::Subprotocol(_) => {
            forward(link, shared, request, body, None);
        }
    }
}

/// Lets the server answer. The client gets that answer, or another one in place of it.
fn forward(link: &Link, shared: &Shared, request: &Request, body: &[u8], instead: Option<&Answer>) {
    let request = [request.once().as_bytes(), body].concat();
    let Some(server) = connect(shared, &request) else {
        return link.cut();
    };
    let mut answer = Vec::new();
    while link.is_live() && read(&server, &mut answer) {}
    if let Some(instead) = instead {
        return end(link, instead);
    }
    if let Some(head) = take_head(&mut answer) {
        let bytes = [last_answer(&head).as_bytes(), &answer].concat();
        // If the client is gone, there is nobody to answer.
        let _ = link.write(link.client(), &bytes);
        let _ = link.client().shutdown(std::net::Shutdown::Write);
        wait_for_the_client(link);
    } else {
        link.cut();
    }
}

fn end(link: &Link, answer: &Answer) {
    give(link, answer);
    wait_for_the_client(link);
}
