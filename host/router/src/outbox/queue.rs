//! Frames in the order in which they are written, and the progress of the first one.

use std::{cell::RefCell, collections::VecDeque, io};

use bytes::Bytes;
use signalbox_protocol::Frame;
use signalbox_websocket as websocket;

use super::{FRAME_OVERHEAD_BYTES, FrameEncoder, SocketSink};

/// Maximum number of bytes of frames that are gathered for one write; a larger frame is not copied.
const GATHERED_BYTES: usize = 16 << 10;
/// The capacity that an empty queue keeps: enough for a client that gets one message after another.
const PLACES_AT_REST: usize = 4;
/// The capacity of a queue with more frames than that.
const PLACES_IN_A_BURST: usize = 32;

thread_local! {
    /// The buffer in which frames are gathered.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A queued frame.
#[derive(Debug)]
pub(super) enum QueuedFrame {
    /// A text frame. Its header is created when it is written, because all receivers share the text.
    Text {
        frame: Frame,
        /// Whether it is a message, which counts as lost if it is not written.
        is_message: bool,
    },
    /// A text frame as the encoder of the socket encoded it.
    Encoded { bytes: Bytes, is_message: bool },
    /// A control frame with its header.
    Control(Bytes),
}

/// The queued frames: text frames in order, control frames before them, and a close frame after them.
#[derive(Debug, Default)]
pub(super) struct FrameQueue {
    frames: VecDeque<QueuedFrame>,
    /// The bytes charged for the text frames.
    bytes: usize,
    /// The number of queued control frames, except a close frame.
    controls: usize,
    /// Bytes of the first frame that have already been written.
    written: usize,
    /// The number of bytes written since the start.
    written_in_all: u64,
}

impl QueuedFrame {
    fn body(&self) -> &[u8] {
        match self {
            Self::Text { frame, .. } => frame.as_str().as_bytes(),
            Self::Encoded { bytes, .. } | Self::Control(bytes) => bytes,
        }
    }

    fn header_len(&self) -> usize {
        match self {
            Self::Text { frame, .. } => websocket::header_len(frame.len()),
            Self::Encoded { .. } | Self::Control(_) => 0,
        }
    }

    fn charge(&self) -> usize {
        match self {
            Self::Text { frame, .. } => frame.len() + FRAME_OVERHEAD_BYTES,
            Self::Encoded { bytes, .. } => bytes.len() + FRAME_OVERHEAD_BYTES,
            Self::Control(_) => 0,
        }
    }

    fn is_message(&self) -> bool {
        matches!(
            self,
            Self::Text {
                is_message: true,
                ..
            } | Self::Encoded {
                is_message: true,
                ..
            }
        )
    }
}

impl FrameQueue {
    /// The bytes charged for the text frames.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn controls(&self) -> usize {
        self.controls
    }

    pub(super) fn written_in_all(&self) -> u64 {
        self.written_in_all
    }

    pub(super) fn push(&mut self, frame: Frame, is_message: bool) {
        let queued = QueuedFrame::Text { frame, is_message };
        self.bytes += queued.charge();
        // In one step, because a queue at rest is small again after each write.
        if self.frames.len() == PLACES_AT_REST && self.frames.capacity() < PLACES_IN_A_BURST {
            self.frames.reserve(PLACES_IN_A_BURST - PLACES_AT_REST);
        }
        self.frames.push_back(queued);
    }

    /// Queues a text frame that is no message before all others. None of them may be partly written.
    pub(super) fn push_first(&mut self, frame: Frame) {
        let queued = QueuedFrame::Text {
            frame,
            is_message: false,
        };
        self.bytes += queued.charge();
        self.frames.insert(self.controls, queued);
    }

    /// Queues a control frame before all text frames, except a partly written one.
    pub(super) fn push_control(&mut self, encoded: Bytes) {
        let first = self.frames.front();
        let begun = self.written > 0
            && first.is_some_and(|first| !matches!(first, QueuedFrame::Control(_)));
        let place = self.controls + usize::from(begun);
        self.frames.insert(place, QueuedFrame::Control(encoded));
        self.controls += 1;
    }

    /// Queues a close frame, after which nothing may be queued.
    pub(super) fn push_close(&mut self, encoded: Bytes) {
        self.frames.push_back(QueuedFrame::Control(encoded));
    }

    /// Discards all queued frames, except a partly written one: another frame can only follow its end. Returns the number of
    /// lost messages.
    pub(super) fn abandon(&mut self) -> usize {
        let first = self.frames.pop_front_if(|_| self.written > 0);
        let lost = self.clear();
        if let Some(first) = first {
            self.bytes = first.charge();
            self.controls = usize::from(matches!(first, QueuedFrame::Control(_)));
            self.frames.push_back(first);
        }
        lost
    }

    /// Discards everything. Returns the number of lost messages.
    pub(super) fn clear(&mut self) -> usize {
        self.bytes = 0;
        self.controls = 0;
        let frames = std::mem::take(&mut self.frames);
        frames.iter().filter(|frame| frame.is_message()).count()
    }

    /// Writes until the queue is empty.
    ///
    /// # Errors
    /// Returns the errors of the sink; frames that were written before are removed.
    pub(super) fn write(&mut self, sink: &mut dyn SocketSink) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        GATHERED.with_borrow_mut(|gathered| -> io::Result<()> {
            while !self.frames.is_empty() {
                if let Some(encoder) = sink.encoder() {
                    self.encode_next(encoder);
                }
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

    /// Encodes the frames that are written next.
    fn encode_next(&mut self, encoder: &mut dyn FrameEncoder) {
        let mut gathered = 0;
        let mut written = self.written;
        for queued in &mut self.frames {
            if let QueuedFrame::Text { frame, is_message } = queued {
                self.bytes -= frame.len();
                let bytes = encoder.encode(frame);
                self.bytes += bytes.len();
                *queued = QueuedFrame::Encoded {
                    bytes,
                    is_message: *is_message,
                };
            }
            gathered += queued.body().len() - written;
            written = 0;
            if gathered > GATHERED_BYTES {
                break;
            }
        }
    }

    /// Fills `gathered` with the next bytes to write, and returns the rest of a frame that is too large to be copied.
    fn gather<'q>(&'q self, gathered: &mut Vec<u8>) -> &'q [u8] {
        gathered.clear();
        let mut written = self.written;
        for frame in &self.frames {
            let (body, header_len) = (frame.body(), frame.header_len());
            if header_len > 0 && written < header_len {
                let start = gathered.len();
                websocket::push_text_header(body.len(), gathered);
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
        self.written_in_all += taken as u64;
        while let Some(frame) = self.frames.front() {
            let left = frame.header_len() + frame.body().len() - self.written;
            if taken < left {
                self.written += taken;
                return;
            }
            taken -= left;
            self.written = 0;
            self.bytes -= frame.charge();
            if matches!(frame, QueuedFrame::Control(_)) {
                self.controls = self.controls.saturating_sub(1);
            }
            self.frames.pop_front();
        }
    }
}
