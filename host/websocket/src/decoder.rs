//! Decodes the frames of a client as its bytes arrive.

use super::{BINARY, CLOSE, CONTINUATION, CONTROL_BYTES_MAX, FIN, NO_CODE, PING, PONG, TEXT};

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// A message or control frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A fragment of this many bytes; more of its message follows.
    Fragment(usize),
    /// A ping with its payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// A close frame, after which nothing is decoded. The code is [`NO_CODE`] if the frame has none.
    Close {
        /// The client's code.
        code: u16,
        /// The client's reason.
        reason: String,
    },
}

/// Why the bytes of a client cannot be decoded. Nothing can be decoded after such an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A message is larger than the limit.
    #[error("the message is larger than the limit")]
    TooBig,
    /// A text message or the reason of a close frame is not UTF-8.
    #[error("a text frame is not UTF-8")]
    NotUtf8,
    /// The client broke the WebSocket protocol.
    #[error("{0}")]
    Violation(&'static str),
}

/// Decodes the bytes of one client. Memory is allocated for bytes that have arrived, never for bytes that were only
/// announced.
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    /// The header being read.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is being read.
    frame: Option<FrameHeader>,
    /// The message being read, across all its fragments.
    message: Option<MessageParts>,
    control: Vec<u8>,
    /// Whether messages are skipped, so that only a close frame counts.
    skipping: bool,
}

#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    fin: bool,
    opcode: u8,
    /// The length of the payload, in bytes.
    len: usize,
    /// The part of it that has not arrived yet.
    left: usize,
    /// The mask for the next byte and those after it.
    mask: [u8; 4],
}

#[derive(Debug)]
struct MessageParts {
    is_text: bool,
    bytes: Vec<u8>,
    /// How many bytes of a text are known to be UTF-8.
    checked: usize,
}

impl Decoder {
    /// Creates a decoder for messages of at most `message_bytes_max` bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            skipping: false,
        }
    }

    /// Sets the limit for messages whose next frame begins from now on.
    pub fn set_message_bytes_max(&mut self, bytes: usize) {
        self.message_bytes_max = bytes;
    }

    /// Skips messages from now on, without keeping them: [`decode`](Self::decode) returns only close frames.
    pub fn skip_messages(&mut self) {
        self.skipping = true;
        self.message = None;
    }

    /// Whether a frame or a message has begun and not ended.
    pub fn is_midway(&self) -> bool {
        self.header_len > 0 || self.frame.is_some() || self.message.is_some()
    }

    /// Memory held for an unfinished message, in bytes.
    pub fn kept_bytes(&self) -> usize {
        self.message
            .as_ref()
            .map_or(0, |message| message.bytes.capacity())
    }

    /// Decodes from the front of `input`, up to the first complete message or frame. Returns `None` if all of `input`
    /// was consumed.
    ///
    /// # Errors
    /// Returns [`DecodeError`] as soon as a byte shows the fault.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, DecodeError> {
        loop {
            let Some(frame) = &mut self.frame else {
                match self.read_header(input)? {
                    Some(frame) => self.frame = Some(frame),
                    None => return Ok(None),
                }
                continue;
            };
            let (payload, rest) = input.split_at(frame.left.min(input.len()));
            *input = rest;
            frame.left -= payload.len();
            let (mut read, ended) = (*frame, frame.left == 0);
            frame.mask.rotate_left(payload.len() % 4);
            read.left += payload.len();
            self.take_in(read, payload, ended)?;
            if !ended {
                return Ok(None);
            }
            self.frame = None;
            if let Some(whole) = self.end_frame(read)? {
                return Ok(Some(whole));
            }
        }
    }

    /// Reads a header, and detects its faults as early as possible. Returns `None` if more bytes are needed.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, DecodeError> {
        loop {
            let needed = self.header_needs()?;
            let missing = needed - self.header_len;
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.header[self.header_len..][..taken.len()].copy_from_slice(taken);
            self.header_len += taken.len();
            *input = rest;
            if taken.len() < missing {
                return Ok(None);
            }
            if needed > 2 {
                self.header_len = 0;
                return self.parse_header(needed).map(Some);
            }
        }
    }

    /// The length of the header, as far as its first bytes reveal it.
    fn header_needs(&self) -> Result<usize, DecodeError> {
        if self.header_len < 2 {
            return Ok(2);
        }
        let [first, second, ..] = self.header;
        self.check_first(first)?;
        if second & 0x80 == 0 {
            return Err(DecodeError::Violation("a frame is not masked"));
        }
        let short = usize::from(second & 0x7f);
        if first & 0x8 != 0 && short > CONTROL_BYTES_MAX {
            return Err(DecodeError::Violation("a control frame is too long"));
        }
        Ok(match short {
            126 => 8,
            127 => 14,
            _ => 6,
        })
    }

    fn check_first(&self, first: u8) -> Result<(), DecodeError> {
        if first & 0x70 != 0 {
            return Err(DecodeError::Violation("a reserved bit is set"));
        }
        let violation = match (first & 0xf, self.message.is_some()) {
            (CONTINUATION | TEXT | BINARY, _) if self.skipping => return Ok(()),
            (CONTINUATION, false) => "a fragment continues no message",
            (TEXT | BINARY, true) => "a message begins inside another one",
            (CLOSE | PING | PONG, _) if first & FIN == 0 => "a control frame is fragmented",
            (CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG, _) => return Ok(()),
            _ => "a frame is of an unknown kind",
        };
        Err(DecodeError::Violation(violation))
    }

    fn parse_header(&mut self, header_len: usize) -> Result<FrameHeader, DecodeError> {
        let header = &self.header[..header_len];
        let (length, mask) = header[1..].split_at(header_len - 5);
        let len = match length {
            [short] => u64::from(short & 0x7f),
            [_, high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [_, long @ ..] => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            [] => 0,
        };
        if len >> 63 != 0 {
            return Err(DecodeError::Violation("a frame's length is negative"));
        }
        let len = usize::try_from(len).map_err(|_| DecodeError::TooBig)?;
        let mut frame = FrameHeader {
            fin: header[0] & FIN != 0,
            opcode: header[0] & 0xf,
            len,
            left: len,
            mask: [0; 4],
        };
        frame.mask.copy_from_slice(mask);
        self.begin_frame(frame)?;
        Ok(frame)
    }

    fn begin_frame(&mut self, frame: FrameHeader) -> Result<(), DecodeError> {
        if self.skipping || frame.is_control() {
            return Ok(());
        }
        let before = self
            .message
            .as_ref()
            .map_or(0, |message| message.bytes.len());
        if frame.left > self.message_bytes_max.saturating_sub(before) {
            return Err(DecodeError::TooBig);
        }
        if self.message.is_none() {
            self.message = Some(MessageParts {
                is_text: frame.opcode == TEXT,
                bytes: Vec::new(),
                checked: 0,
            });
        }
        Ok(())
    }

    /// Processes a piece of the payload of `frame`, of which `frame.left` bytes were missing before it.
    fn take_in(
        &mut self,
        frame: FrameHeader,
        piece: &[u8],
        ended: bool,
    ) -> Result<(), DecodeError> {
        if frame.is_control() {
            if frame.opcode != PONG {
                let at = self.control.len();
                self.control.extend_from_slice(piece);
                unmask(&mut self.control[at..], frame.mask);
            }
            return Ok(());
        }
        let Some(message) = &mut self.message else {
            return Ok(());
        };
        let expected = message.bytes.len() + frame.left;
        message.append(piece, frame.mask, expected);
        // A message that arrives in one piece is checked when it is converted to a string.
        let is_in_one_piece = ended && frame.fin && message.bytes.len() == piece.len();
        if message.is_text && !is_in_one_piece {
            message.check()?;
        }
        Ok(())
    }

    fn end_frame(&mut self, frame: FrameHeader) -> Result<Option<Incoming>, DecodeError> {
        match frame.opcode {
            PONG => Ok(Some(Incoming::Pong).filter(|_| !self.skipping)),
            PING => {
                let payload = std::mem::take(&mut self.control);
                Ok(Some(Incoming::Ping(payload)).filter(|_| !self.skipping))
            }
            CLOSE => decode_close(&std::mem::take(&mut self.control)).map(Some),
            _ if !frame.fin => Ok((!self.skipping).then_some(Incoming::Fragment(frame.len))),
            _ => self
                .message
                .take()
                .map(MessageParts::into_incoming)
                .transpose(),
        }
    }
}

impl FrameHeader {
    fn is_control(self) -> bool {
        self.opcode & 0x8 != 0
    }
}

impl MessageParts {
    /// Appends a piece to a message that will have at least `expected` bytes.
    fn append(&mut self, piece: &[u8], mask: [u8; 4], expected: usize) {
        let at = self.bytes.len();
        let needed = at + piece.len();
        if needed > self.bytes.capacity() {
            let doubled = (2 * self.bytes.capacity()).min(expected);
            self.bytes.reserve_exact(doubled.max(needed) - at);
        }
        self.bytes.extend_from_slice(piece);
        unmask(&mut self.bytes[at..], mask);
    }

    /// Checks the bytes of a text that have not been checked yet. The last character may be incomplete.
    fn check(&mut self) -> Result<(), DecodeError> {
        self.checked += match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(DecodeError::NotUtf8),
        };
        Ok(())
    }

    fn into_incoming(self) -> Result<Incoming, DecodeError> {
        if !self.is_text {
            return Ok(Incoming::Binary(self.bytes));
        }
        String::from_utf8(self.bytes)
            .map(Incoming::Text)
            .map_err(|_| DecodeError::NotUtf8)
    }
}

fn decode_close(payload: &[u8]) -> Result<Incoming, DecodeError> {
    let (code, reason) = match payload {
        [] => (NO_CODE, &[][..]),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [_] => return Err(DecodeError::Violation("half a code in a close frame")),
    };
    // RFC 6455 §7.4, and the codes that IANA has registered since.
    let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !may_be_sent && !payload.is_empty() {
        return Err(DecodeError::Violation(
            "a close frame with a code that must not be sent",
        ));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| DecodeError::NotUtf8)?;
    Ok(Incoming::Close {
        code,
        reason: reason.to_owned(),
    })
}

/// XORs `bytes` with the repeated `mask`.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
