//! One connection of the load generator: sends messages and evaluates the frames that arrive.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::clock::now_ns;
use super::message::{StampReader, Template};
use super::order::SequenceCheck;
use super::protocol::{Incoming, Protocol};
use super::tally::{Counts, Tally};
use crate::frame::{
    BINARY, CLOSE, NORMAL_CLOSURE, OpCode, PING, PONG, TEXT, describe_close, next_frame,
    put_client_frame,
};
use crate::lock;
use crate::socket::{FrameReader, SharedWriter};

thread_local! {
    /// Reused buffer for the messages of one write.
    static BATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Number of bytes kept of a server's error.
const ERROR_TEXT_BYTES_MAX: usize = 200;

/// A connection that sends to one destination and checks the messages that it receives.
#[derive(Debug)]
pub(super) struct Endpoint {
    writer: Arc<SharedWriter>,
    /// Locked while messages are numbered and written, so that the numbers leave in order.
    sending: Mutex<Sending>,
    /// One for each sender that this connection receives from.
    checks: Mutex<Vec<SequenceCheck>>,
    protocol: &'static Protocol,
    /// Whether the server has answered the last frame that it must answer.
    ready: AtomicBool,
}

#[derive(Debug)]
struct Sending {
    /// `None` for a connection that sends nothing.
    template: Option<Template>,
    next: u64,
}

impl Endpoint {
    /// Creates an endpoint that receives from `senders` senders.
    pub(super) fn new(
        protocol: &'static Protocol,
        writer: Arc<SharedWriter>,
        template: Option<Template>,
        senders: usize,
    ) -> Self {
        let mut checks = Vec::new();
        checks.resize_with(senders, SequenceCheck::default);
        Self {
            writer,
            sending: Mutex::new(Sending { template, next: 0 }),
            checks: Mutex::new(checks),
            protocol,
            ready: AtomicBool::new(false),
        }
    }

    /// Sends `count` messages with one write, all with the same send time.
    pub(super) fn send(&self, count: usize, time_ns: u64, tally: &Tally) {
        let mut sending = lock(&self.sending);
        let Sending {
            template: Some(template),
            next,
        } = &mut *sending
        else {
            return;
        };
        let sent = BATCH.with_borrow_mut(|batch| {
            batch.clear();
            for number in *next..*next + count as u64 {
                put_client_frame(batch, TEXT, template.fill(time_ns, number));
            }
            self.writer.send(batch)
        });
        if sent.is_ok() {
            *next += count as u64;
        }
        drop(sending);
        match sent {
            Ok(()) => tally.add_sent(count),
            // `receive` counts a closed connection.
            Err(_) if tally.counts().closed > 0 => {}
            Err(error) => tally.counts().error(|| format!("cannot send: {error}")),
        }
    }

    /// Sends a frame that does not count as a message.
    fn send_frame(&self, opcode: OpCode, payload: &[u8]) {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        put_client_frame(&mut frame, opcode, payload);
        // A failure shows up as the end of the connection.
        let _ = self.writer.send(&frame);
    }

    /// Sends a text that the server must answer.
    pub(super) fn ask(&self, text: &str) {
        self.ready.store(false, Ordering::Relaxed);
        self.send_frame(TEXT, text.as_bytes());
    }

    /// Starts the closing handshake with code 1000.
    pub(super) fn close(&self) {
        self.send_frame(CLOSE, &NORMAL_CLOSURE);
    }

    /// Number of messages sent so far.
    pub(super) fn sent(&self) -> u64 {
        lock(&self.sending).next
    }

    /// The checks, one for each sender.
    pub(super) fn checks(&self) -> MutexGuard<'_, Vec<SequenceCheck>> {
        lock(&self.checks)
    }
}

/// How a connection reacts to the messages that it receives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behaviour {
    /// Closed loop: each message that arrives triggers a new one.
    pub(super) reply: bool,
    /// Messages carry the index of their sender.
    pub(super) with_sender: bool,
}

/// Receives until the connection ends. The end is counted if it comes before the run is over.
pub(super) async fn receive(
    mut reader: FrameReader,
    endpoint: Arc<Endpoint>,
    tally: Arc<Tally>,
    behaviour: Behaviour,
) {
    let mut stamps = StampReader::default();
    let end = loop {
        match reader
            .read_with(|bytes| endpoint.take(bytes, &mut stamps, &tally, behaviour))
            .await
        {
            Ok(Some(None)) => {}
            Ok(Some(Some(end))) => break end,
            Ok(None) => break "closed without a close frame".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    endpoint.writer.close();
    if !tally.finished.load(Ordering::Relaxed) {
        tally.counts().closed(|| format!("connection ended: {end}"));
    }
}

/// The state of one read: what the texts in it are checked against and counted in.
struct Taking<'a> {
    stamps: &'a mut StampReader,
    behaviour: Behaviour,
    now_ns: u64,
    tally: &'a Tally,
    counts: &'a mut Counts,
    checks: &'a mut [SequenceCheck],
}

impl Endpoint {
    /// Processes all complete frames in `bytes`. Returns how many bytes were consumed, and the reason if the connection
    /// ends.
    fn take(
        &self,
        bytes: &[u8],
        stamps: &mut StampReader,
        tally: &Tally,
        behaviour: Behaviour,
    ) -> (usize, Option<String>) {
        let now_ns = now_ns();
        let mut counts = tally.counts();
        let mut checks = self.checks();
        let before = counts.delivered;
        let taking = Taking {
            stamps,
            behaviour,
            now_ns,
            tally,
            counts: &mut counts,
            checks: &mut checks,
        };
        let (consumed, end) = self.take_frames(bytes, taking);
        let messages = counts.delivered - before;
        drop((checks, counts));
        if behaviour.reply && messages > 0 && tally.is_sending() {
            self.send(messages as usize, now_ns, tally);
        }
        (consumed, end)
    }

    fn take_frames(&self, bytes: &[u8], mut taking: Taking<'_>) -> (usize, Option<String>) {
        let several = self.protocol.several_in_a_frame;
        let mut at = 0;
        loop {
            let frame = match next_frame(bytes, at) {
                Ok(None) => return (at, None),
                Ok(Some(frame)) => frame,
                Err(error) => return (at, Some(error.to_string())),
            };
            at = frame.end;
            match frame.opcode {
                TEXT | BINARY if several => {
                    let lines = frame.payload.split(|byte| *byte == b'\n');
                    lines.for_each(|line| self.take_text(line, &mut taking));
                }
                TEXT | BINARY => self.take_text(frame.payload, &mut taking),
                PING => self.send_frame(PONG, frame.payload),
                CLOSE => return (at, Some(describe_close(frame.payload))),
                _ => {}
            }
        }
    }

    /// Handles one of our messages, or something else that the server says.
    fn take_text(&self, text: &[u8], taking: &mut Taking<'_>) {
        let stamp = taking.stamps.read(text, taking.behaviour.with_sender);
        let Some((stamp, check)) =
            stamp.and_then(|stamp| Some((stamp, taking.checks.get_mut(stamp.sender)?)))
        else {
            self.take_other(text, taking.counts);
            return;
        };
        check.observe(stamp.number);
        taking.counts.delivered += 1;
        if taking.tally.measures(stamp.time_ns) {
            let latency_ns = taking.now_ns.saturating_sub(stamp.time_ns);
            taking.counts.latency.saturating_record(latency_ns);
        }
    }

    /// Handles a text that is not one of our messages.
    fn take_other(&self, text: &[u8], counts: &mut Counts) {
        match (self.protocol.classify)(text) {
            Incoming::Ready if self.ready.swap(true, Ordering::Relaxed) => {}
            Incoming::Ready => counts.ready += 1,
            Incoming::Ack => counts.acked += 1,
            Incoming::Answer(answer) => self.send_frame(TEXT, answer.as_bytes()),
            Incoming::Error => {
                let kept = &text[..text.len().min(ERROR_TEXT_BYTES_MAX)];
                counts.error(|| format!("the server said {}", String::from_utf8_lossy(kept)));
            }
            Incoming::Other => {}
        }
    }
}
