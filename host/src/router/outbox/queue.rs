//! Frames in the order in which they are written, and how far the first one is.

use std::{cell::RefCell, collections::VecDeque, io};

use bytes::Bytes;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use super::{FRAME_OVERHEAD_BYTES, Sink};
use crate::protocol::Frame;

/// Frames are gathered up to so many bytes for one write; a larger one is not copied.
const GATHERED_BYTES: usize = 16 << 10;
/// Places that a queue keeps while it is empty: enough for a client that gets one message after another.
const PLACES_AT_REST: usize = 4;

thread_local! {
    /// Where frames are gathered.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A frame that waits.
#[derive(Debug)]
pub(super) enum Queued {
    /// A text frame, whose header is made when it is written: the text is shared by all that it goes to.
    Text(Frame),
    /// A frame with its header.
    Encoded(Bytes),
}

/// The frames that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Queued>,
    /// What is charged for them.
    bytes: usize,
    /// Bytes of the first frame that are written already.
    written: usize,
}

impl Queued {
    fn body(&self) -> &[u8] {
        match self {
            Self::Text(frame) => frame.as_str().as_bytes(),
            Self::Encoded(bytes) => bytes,
        }
    }

    fn header_len(&self) -> usize {
        match self {
            Self::Text(frame) => text_header().len(frame.len() as u64),
            Self::Encoded(_) => 0,
        }
    }

    fn charge(&self) -> usize {
        self.body().len() + FRAME_OVERHEAD_BYTES
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// What the frames are charged with.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, frame: Queued) {
        self.bytes += frame.charge();
        self.frames.push_back(frame);
    }

    /// Throws away what waits, apart from a frame that is written in part: another one can only come after its end.
    pub(super) fn abandon(&mut self) {
        let first = self.frames.pop_front().filter(|_| self.written > 0);
        self.frames = VecDeque::new();
        self.bytes = 0;
        if let Some(first) = first {
            self.push(first);
        }
    }

    /// Writes until nothing waits.
    ///
    /// # Errors
    /// The sink's; what was written until then is taken out.
    pub(super) fn write(&mut self, sink: &dyn Sink) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        GATHERED.with_borrow_mut(|gathered| -> io::Result<()> {
            while !self.frames.is_empty() {
                let large = self.gather(gathered);
                let taken = sink.try_write(gathered, large)?;
                if taken == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.take_out(taken);
            }
            Ok(())
        })?;
        self.frames.shrink_to(PLACES_AT_REST);
        Ok(())
    }

    /// Fills `gathered` with the next bytes to write, and returns what comes after them of a frame too large to be copied.
    fn gather<'q>(&'q self, gathered: &mut Vec<u8>) -> &'q [u8] {
        gathered.clear();
        let mut written = self.written;
        for frame in &self.frames {
            let (body, header_len) = (frame.body(), frame.header_len());
            if header_len > 0 && written < header_len {
                let start = gathered.len();
                // Writing into a vector cannot fail.
                let _ = text_header().format(body.len() as u64, gathered);
                gathered.drain(start..start + written);
            }
            let body = &body[written.saturating_sub(header_len)..];
            written = 0;
            if gathered.len() + body.len() > GATHERED_BYTES {
                return body;
            }
            gathered.extend_from_slice(body);
        }
        &[]
    }

    fn take_out(&mut self, mut taken: usize) {
        while let Some(frame) = self.frames.front() {
            let left = frame.header_len() + frame.body().len() - self.written;
            if taken < left {
                self.written += taken;
                return;
            }
            taken -= left;
            self.written = 0;
            self.bytes -= frame.charge();
            self.frames.pop_front();
        }
    }
}

/// Of a whole text frame.
fn text_header() -> FrameHeader {
    FrameHeader {
        opcode: OpCode::Data(Data::Text),
        ..FrameHeader::default()
    }
}
