//! Reads RFC 6455 frames in place from a buffer, and writes them to one.
//!
//! Only what a relay and a load generator need: whole messages in one frame, no extensions. Everything else is an error
//! with the close code that the RFC names for it.

use thiserror::Error;

/// The longest header: 2 bytes, 8 bytes of extended length, 4 bytes of masking key.
pub const HEADER_BYTES_MAX: usize = 14;

/// The longest payload that this codec accepts, in bytes: the default frame limit of the server that is measured.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The type of a frame (RFC 6455 §5.2). Continuation frames are left out on purpose: see [`FrameError::Fragmented`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A message of UTF-8 text. The codec does not check the encoding.
    Text,
    /// A message of bytes.
    Binary,
    /// Starts or answers the closing handshake.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, FrameError> {
        match bits {
            0x0 => Err(FrameError::Fragmented),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            other => Err(FrameError::UnknownOpcode(other)),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The side that wrote the frames being read: clients must mask, servers must not (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Frames carry a masking key.
    Client,
    /// Frames carry no masking key.
    Server,
}

/// One whole frame, unmasked, inside the buffer that it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type of the frame.
    pub opcode: Opcode,
    /// The unmasked payload, at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: &'a [u8],
    /// Offset in the buffer of the first byte after this frame.
    pub end: usize,
}

/// A frame that the codec rejects. Each error ends the connection with its close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The payload is longer than [`PAYLOAD_BYTES_MAX`].
    #[error("frame of {0} bytes is over the limit of {PAYLOAD_BYTES_MAX}; send smaller messages")]
    TooLarge(u64),
    /// A message split into several frames. A relay that forwards frames as they arrive would interleave fragments of
    /// different senders.
    #[error("fragmented message; send each message in one frame")]
    Fragmented,
    /// An opcode that RFC 6455 reserves.
    #[error("opcode {0:#x} is reserved")]
    UnknownOpcode(u8),
    /// A reserved bit is set although no extension was negotiated.
    #[error("reserved bit set; no extension was negotiated")]
    ReservedBit,
    /// A client's frame without a masking key, or a server's frame with one.
    #[error("masking does not fit the writer; clients mask their frames and servers do not")]
    Masking,
    /// A control frame of more than 125 bytes.
    #[error("control frame of more than {CONTROL_BYTES_MAX} bytes")]
    ControlTooLong,
}

/// Reads the frame that starts at offset `at` and unmasks it in place. Returns `None` while the frame is incomplete.
///
/// The caller advances `at` to [`Frame::end`]. A frame is unmasked only once it is complete, so a later call with more
/// bytes finds it untouched.
///
/// # Errors
/// Returns an error as soon as the header shows that the frame cannot be accepted, even before its payload has arrived.
pub fn next_frame(
    buffer: &mut [u8],
    at: usize,
    writer: Writer,
) -> Result<Option<Frame<'_>>, FrameError> {
    let Some(header) = Header::read(&buffer[at.min(buffer.len())..], writer)? else {
        return Ok(None);
    };
    let start = at + header.header_bytes;
    let end = start + header.payload_bytes;
    if end > buffer.len() {
        return Ok(None);
    }
    let payload = &mut buffer[start..end];
    if let Some(key) = header.key {
        apply_mask(payload, key);
    }
    Ok(Some(Frame {
        opcode: header.opcode,
        payload,
        end,
    }))
}

/// Appends an unmasked frame, as servers send them.
pub fn put_server_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    put_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends a frame masked with `key`, as clients send them. Every frame needs a fresh key (RFC 6455 §5.3).
pub fn put_client_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    put_header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], key);
}

/// The payload of a close frame: the code, without a reason.
#[must_use]
pub fn close_payload(code: u16) -> [u8; 2] {
    code.to_be_bytes()
}

/// The code in the payload of a close frame, or 1005 if there is none (RFC 6455 §7.1.5).
#[must_use]
pub fn close_code(payload: &[u8]) -> u16 {
    payload
        .first_chunk::<2>()
        .map_or(1005, |code| u16::from_be_bytes(*code))
}

/// Masking keys for one connection: xorshift64*, unpredictable enough to exercise the server's unmasking, and cheap.
#[derive(Debug)]
pub struct MaskKeys(u64);

impl MaskKeys {
    /// Seeds the generator from the standard library's random state.
    #[must_use]
    pub fn random() -> Self {
        use std::hash::{BuildHasher as _, Hasher as _};
        Self(std::hash::RandomState::new().build_hasher().finish() | 1)
    }

    /// The next key.
    pub fn next_key(&mut self) -> [u8; 4] {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let [a, b, c, d, ..] = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes();
        [a, b, c, d]
    }
}

struct Header {
    opcode: Opcode,
    key: Option<[u8; 4]>,
    header_bytes: usize,
    payload_bytes: usize,
}

impl Header {
    fn read(bytes: &[u8], writer: Writer) -> Result<Option<Self>, FrameError> {
        let Some(&[first, second]) = bytes.first_chunk::<2>() else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBit);
        }
        let opcode = Opcode::from_bits(first & 0x0F)?;
        if first & 0x80 == 0 {
            return Err(FrameError::Fragmented);
        }
        let masked = second & 0x80 != 0;
        if masked != (writer == Writer::Client) {
            return Err(FrameError::Masking);
        }
        let Some((payload_bytes, length_end)) = read_length(second & 0x7F, bytes) else {
            return Ok(None);
        };
        if opcode.is_control() && payload_bytes > CONTROL_BYTES_MAX as u64 {
            return Err(FrameError::ControlTooLong);
        }
        if payload_bytes > PAYLOAD_BYTES_MAX as u64 {
            return Err(FrameError::TooLarge(payload_bytes));
        }
        let payload_bytes = payload_bytes as usize;
        if !masked {
            return Ok(Some(Self {
                opcode,
                key: None,
                header_bytes: length_end,
                payload_bytes,
            }));
        }
        let key = bytes[length_end..].first_chunk::<4>();
        Ok(key.map(|key| Self {
            opcode,
            key: Some(*key),
            header_bytes: length_end + 4,
            payload_bytes,
        }))
    }
}

/// Returns the payload's length and the offset after the length field, or `None` if the field is incomplete.
fn read_length(short: u8, bytes: &[u8]) -> Option<(u64, usize)> {
    match short {
        126 => bytes[2..]
            .first_chunk::<2>()
            .map(|length| (u64::from(u16::from_be_bytes(*length)), 4)),
        127 => bytes[2..]
            .first_chunk::<8>()
            .map(|length| (u64::from_be_bytes(*length), 10)),
        short => Some((u64::from(short), 2)),
    }
}

fn put_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize, mask_bit: u8) {
    out.push(0x80 | opcode.bits());
    if payload_bytes < 126 {
        out.push(mask_bit | payload_bytes as u8);
    } else if let Ok(length) = u16::try_from(payload_bytes) {
        out.push(mask_bit | 126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

/// XORs eight bytes at a time: the key repeats every four.
fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    #[test]
    fn the_masked_hello_of_rfc_6455_is_written_and_read() {
        let wire = [
            0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58,
        ];
        let mut out = Vec::new();
        put_client_frame(&mut out, Opcode::Text, b"Hello", KEY);
        assert_eq!(out, wire);
        let frame = next_frame(&mut out, 0, Writer::Client);
        assert_eq!(
            frame,
            Ok(Some(Frame {
                opcode: Opcode::Text,
                payload: b"Hello",
                end: 11
            }))
        );
    }

    #[test]
    fn every_length_encoding_comes_back_whole() {
        for length in [0, 1, 7, 8, 125, 126, 127, 65_535, PAYLOAD_BYTES_MAX] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let (mut client, mut server) = (Vec::new(), Vec::new());
            put_client_frame(&mut client, Opcode::Binary, &payload, KEY);
            put_server_frame(&mut server, Opcode::Binary, &payload);
            for (buffer, writer) in [(&mut client, Writer::Client), (&mut server, Writer::Server)] {
                let end = buffer.len();
                let frame = next_frame(buffer, 0, writer);
                assert_eq!(
                    frame,
                    Ok(Some(Frame {
                        opcode: Opcode::Binary,
                        payload: &payload,
                        end
                    })),
                    "length {length}"
                );
            }
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_not_there_yet_and_stays_untouched() {
        let mut whole = Vec::new();
        put_client_frame(&mut whole, Opcode::Text, &[b'x'; 300], KEY);
        for cut in 0..whole.len() {
            let mut part = whole[..cut].to_vec();
            assert_eq!(
                next_frame(&mut part, 0, Writer::Client),
                Ok(None),
                "cut at {cut}"
            );
            assert_eq!(part, whole[..cut]);
        }
    }

    #[test]
    fn frames_in_one_buffer_are_read_one_after_another() {
        let mut buffer = Vec::new();
        put_server_frame(&mut buffer, Opcode::Ping, b"p");
        put_server_frame(&mut buffer, Opcode::Text, b"two");
        let end = next_frame(&mut buffer, 0, Writer::Server)
            .ok()
            .flatten()
            .map(|frame| frame.end);
        assert_eq!(end, Some(3));
        let second = next_frame(&mut buffer, 3, Writer::Server);
        assert_eq!(
            second,
            Ok(Some(Frame {
                opcode: Opcode::Text,
                payload: b"two",
                end: 8
            }))
        );
    }

    #[test]
    fn what_cannot_be_accepted_is_refused_from_its_header() {
        let cases: [(&[u8], FrameError); 7] = [
            (&[0xC1, 0x80], FrameError::ReservedBit),
            (&[0x83, 0x80], FrameError::UnknownOpcode(3)),
            (&[0x01, 0x80], FrameError::Fragmented),
            (&[0x80, 0x80], FrameError::Fragmented),
            (&[0x81, 0x01], FrameError::Masking),
            (&[0x89, 0xFE, 0, 126], FrameError::ControlTooLong),
            (
                &[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1],
                FrameError::TooLarge(65_537),
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(
                next_frame(&mut bytes.to_vec(), 0, Writer::Client),
                Err(error)
            );
        }
        assert_eq!(
            next_frame(&mut [0x81, 0x80], 0, Writer::Server),
            Err(FrameError::Masking)
        );
    }

    #[test]
    fn masking_keys_differ_from_frame_to_frame() {
        let mut keys = MaskKeys::random();
        let first: Vec<_> = (0..8).map(|_| keys.next_key()).collect();
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_close_code_survives_the_round_trip_and_may_be_missing() {
        assert_eq!(close_code(&close_payload(4001)), 4001);
        assert_eq!(close_code(&[]), 1005);
    }
}
