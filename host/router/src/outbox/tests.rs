//! Tests an outbox over a socket that accepts only as much as the test allows.

use std::sync::Arc;

use super::*;

/// The bytes that were written, and how many more the socket accepts.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    room: usize,
}

impl SocketSink for Socket {
    fn try_write(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap();
        let taken = written.room.min(first.len() + second.len());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        written.room -= taken;
        let offered = first.iter().chain(second).take(taken);
        written.bytes.extend(offered);
        Ok(taken)
    }
}

impl Socket {
    fn give_room(&self, bytes: usize) {
        self.0.lock().unwrap().room += bytes;
    }

    /// The texts of the complete frames that were written, and the bytes that follow them.
    fn frames(&self) -> (Vec<String>, Vec<u8>) {
        let mut rest = self.0.lock().unwrap().bytes.clone();
        let mut texts = Vec::new();
        loop {
            let (header, len) = match rest[..] {
                [0x81, len @ 0..126, ..] => (2, usize::from(len)),
                [0x81, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
                [0x81, 127, a, b, c, d, e, f, g, h, ..] => {
                    let len = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                    (10, usize::try_from(len).unwrap())
                }
                _ => return (texts, rest),
            };
            if rest.len() < header + len {
                return (texts, rest);
            }
            texts.push(String::from_utf8(rest[header..header + len].to_vec()).unwrap());
            rest.drain(..header + len);
        }
    }
}

fn outbox() -> (Outbox, Socket) {
    let (outbox, socket) = (Outbox::new(), Socket::default());
    outbox.attach(Box::new(socket.clone()));
    (outbox, socket)
}

fn frame(text: &str) -> Frame {
    Frame::from(text.to_owned())
}

/// A turn of the session, whose socket does not become writable meanwhile.
fn turn(outbox: &Outbox) -> Poll<io::Result<CloseRequest>> {
    let mut cx = Context::from_waker(Waker::noop());
    outbox.poll_write(&mut cx, |_| Poll::Pending)
}

#[test]
fn frames_are_written_in_order_by_any_flusher() {
    let (outbox, socket) = outbox();
    socket.give_room(1000);
    assert_eq!(
        outbox.push(frame("a"), true, 1000),
        Ok(PendingWrite::Unwritten)
    );
    assert_eq!(
        outbox.push(frame("b"), true, 1000),
        Ok(PendingWrite::Unwritten)
    );
    assert!(socket.frames().0.is_empty());
    outbox.flush();
    assert_eq!(socket.frames().0, ["a", "b"]);
    outbox.flush();
    assert_eq!(socket.frames().0.len(), 2);
}

#[test]
fn every_length_of_frame_survives_writes_that_end_anywhere() {
    let texts: Vec<_> = [0, 1, 125, 126, 20_000, 65_535, 65_536, 70_000, 3]
        .map(|length| "x".repeat(length))
        .into();
    for step in [1, 2, 3, 7, 1_000, 40_000] {
        let (outbox, socket) = outbox();
        for text in &texts {
            outbox.push(frame(text), true, 1 << 20).unwrap();
        }
        while outbox.state().queue.bytes() > 0 {
            socket.give_room(step);
            assert!(turn(&outbox).is_pending());
        }
        let (written, rest) = socket.frames();
        assert!(written == texts && rest.is_empty(), "{step} bytes a time");
    }
}

#[test]
fn the_session_continues_a_partial_write_once_the_socket_is_writable() {
    let (outbox, socket) = outbox();
    socket.give_room(5);
    outbox.push(frame("abc"), true, 1000).unwrap();
    outbox.push(frame("def"), true, 1000).unwrap();
    outbox.flush();
    assert_eq!(
        outbox.push(frame("ghi"), true, 1000),
        Ok(PendingWrite::Blocked)
    );
    socket.give_room(1000);
    outbox.flush();
    assert_eq!(socket.frames().0, ["abc"], "only the session writes now");
    assert!(turn(&outbox).is_pending());
    assert_eq!(socket.frames().0, ["abc", "def", "ghi"]);
    assert_eq!(
        outbox.push(frame("j"), true, 1000),
        Ok(PendingWrite::Unwritten)
    );
}

#[test]
fn a_full_outbox_closes_with_4001_and_gives_its_memory_back() {
    let (outbox, _socket) = outbox();
    outbox.push(frame("a"), true, 65).unwrap();
    assert_eq!(
        outbox.push(frame("b"), true, 65),
        Err(PushError::Full { lost: 1 })
    );
    assert_eq!(outbox.push(frame("c"), true, 65), Err(PushError::Closing));
    assert_eq!(outbox.state().queue.bytes(), 0);
    let close = turn(&outbox);
    assert!(matches!(close, Poll::Ready(Ok(close)) if close.code == CloseCode::SLOW_CONSUMER));
}

#[test]
fn an_empty_outbox_takes_any_frame() {
    let (outbox, socket) = outbox();
    let large = "x".repeat(1000);
    outbox.push(frame(&large), true, 65).unwrap();
    socket.give_room(2000);
    outbox.flush();
    assert_eq!(socket.frames().0, [large]);
}

#[test]
fn the_close_frame_of_a_slow_reader_comes_after_the_end_of_the_frame_it_is_in() {
    let (outbox, socket) = outbox();
    socket.give_room(3);
    outbox.push(frame("abc"), true, 150).unwrap();
    outbox.flush();
    outbox.push(frame("lost"), true, 150).unwrap();
    let full = outbox.push(frame("one too many, and long enough to be"), true, 150);
    assert_eq!(full, Err(PushError::Full { lost: 1 }));
    outbox.push_close(Bytes::from_static(b"close"));
    socket.give_room(1000);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(outbox.poll_drain(&mut cx, |_| Poll::Pending).is_ready());
    assert_eq!(socket.frames(), (vec!["abc".to_owned()], b"close".to_vec()));
}

#[test]
fn a_client_that_does_not_read_cannot_put_off_a_close_and_the_first_one_counts() {
    let (outbox, socket) = outbox();
    outbox.push(frame("a"), true, 1000).unwrap();
    outbox.close(CloseCode::KICKED, "first");
    outbox.close(CloseCode::DRAIN, "second");
    let close = turn(&outbox);
    assert!(matches!(close, Poll::Ready(Ok(close)) if close.code == CloseCode::KICKED));
    // Its frame still comes after the queued ones.
    outbox.push_close(Bytes::from_static(b"close"));
    socket.give_room(1000);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(outbox.poll_drain(&mut cx, |_| Poll::Pending).is_ready());
    assert_eq!(socket.frames(), (vec!["a".to_owned()], b"close".to_vec()));
}

#[test]
fn pings_without_end_do_not_fill_the_memory() {
    let (outbox, socket) = outbox();
    for _ in 0..1000 {
        outbox.push_pong(Bytes::from_static(b"pong"));
    }
    outbox.push_ping(Bytes::from_static(b"ping"));
    socket.give_room(10_000);
    outbox.flush();
    let written = socket.frames().1;
    assert_eq!(written.len(), (CONTROLS_MAX + 1) * 4);
    assert!(written.ends_with(b"ping"), "pongs do not keep a ping out");
    outbox.push_pong(Bytes::from_static(b"pong"));
    outbox.flush();
    assert_eq!(socket.frames().1.len(), (CONTROLS_MAX + 2) * 4);
}

#[test]
fn a_close_frame_is_sent_although_control_frames_fill_the_outbox() {
    let (outbox, socket) = outbox();
    for _ in 0..=CONTROLS_MAX {
        outbox.push_pong(Bytes::from_static(b"pong"));
    }
    outbox.push_close(Bytes::from_static(b"close"));
    outbox.push_close(Bytes::from_static(b"another"));
    outbox.push_pong(Bytes::from_static(b"late"));
    socket.give_room(10_000);
    outbox.flush();
    let written = socket.frames().1;
    assert!(written.ends_with(b"pongclose"), "{written:?}");
}

#[test]
fn control_frames_overtake_waiting_frames_and_never_split_one() {
    for begun in 0..8 {
        let (outbox, socket) = outbox();
        socket.give_room(begun);
        outbox.push(frame("abcd"), true, 1000).unwrap();
        outbox.push(frame("efgh"), true, 1000).unwrap();
        outbox.flush();
        outbox.push_ping(Bytes::from_static(&[0x89, 0]));
        outbox.push_pong(Bytes::from_static(&[0x8a, 0]));
        socket.give_room(1);
        assert!(turn(&outbox).is_pending());
        outbox.push_pong(Bytes::from_static(&[0x8a, 1, b'x']));
        socket.give_room(1000);
        assert!(turn(&outbox).is_pending());
        let written = socket.0.lock().unwrap().bytes.clone();
        let controls = b"\x89\0\x8a\0\x8a\x01x";
        let expected = match begun {
            0 => [controls, &b"\x81\x04abcd\x81\x04efgh"[..]].concat(),
            1..=6 => [b"\x81\x04abcd", &controls[..], b"\x81\x04efgh"].concat(),
            _ => [&b"\x81\x04abcd\x81\x04efgh"[..], controls].concat(),
        };
        assert_eq!(written, expected, "{begun} bytes were written");
    }
}

#[test]
fn each_message_is_written_or_lost_once() {
    let (outbox, socket) = outbox();
    socket.give_room(8);
    for text in ["one", "two", "thr"] {
        outbox.push(frame(text), true, 1000).unwrap();
    }
    outbox.push(frame("an ack"), false, 1000).unwrap();
    outbox.flush();
    assert_eq!(socket.frames().0, ["one"], "and a part of the second");
    let large = "x".repeat(1000);
    let full = outbox.push(frame(&large), true, 1000);
    assert_eq!(full, Err(PushError::Full { lost: 1 }), "the third");
    assert_eq!(outbox.detach(), 1, "the second, which is written in part");
    assert_eq!(outbox.detach(), 0);
}

#[test]
fn a_socket_that_takes_more_after_it_was_full_is_a_sign_of_life() {
    let (outbox, socket) = outbox();
    socket.give_room(1000);
    outbox.push(frame("abc"), true, 1000).unwrap();
    assert!(turn(&outbox).is_pending());
    assert!(!outbox.took_more(), "buffers of the system took it");
    socket.give_room(1);
    outbox
        .push(frame("x".repeat(2000).as_str()), true, 1000)
        .unwrap();
    assert!(turn(&outbox).is_pending());
    assert!(!outbox.took_more());
    socket.give_room(1);
    assert!(turn(&outbox).is_pending());
    assert!(outbox.took_more() && !outbox.took_more());
    assert_eq!(outbox.written(), 1002);
}
