//! Reads a server's RFC 6455 frames in place from a buffer, and writes a client's frames to one.
//!
//! Only what a load generator needs: whole messages in one frame, no extensions. Everything else is an error. A library
//! would copy every payload, and coding the headers alone with one takes more CPU time than this.

use anyhow::ensure;

/// The longest header: 2 bytes, 8 bytes of extended length, 4 bytes of masking key.
pub(crate) const HEADER_BYTES_MAX: usize = 14;

/// The longest payload that this codec accepts, in bytes: the default frame limit of the server that is measured.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// The type of a frame (RFC 6455 §5.2).
pub(crate) type OpCode = u8;

pub(crate) const TEXT: OpCode = 0x1;
pub(crate) const BINARY: OpCode = 0x2;
pub(crate) const CLOSE: OpCode = 0x8;
pub(crate) const PING: OpCode = 0x9;
pub(crate) const PONG: OpCode = 0xA;

/// The payload of a close frame with code 1000.
pub(crate) const NORMAL_CLOSURE: [u8; 2] = 1000_u16.to_be_bytes();

/// One whole frame inside the buffer that it was read from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: OpCode,
    pub(crate) payload: &'a [u8],
    /// Offset in the buffer of the first byte after this frame.
    pub(crate) end: usize,
}

/// Reads the frame that starts at offset `at`. Returns `None` while the frame is incomplete.
///
/// # Errors
/// Returns an error as soon as the header shows that the frame cannot be accepted, even before its payload has arrived.
pub(crate) fn next_frame(buffer: &[u8], at: usize) -> anyhow::Result<Option<Frame<'_>>> {
    let rest = &buffer[at.min(buffer.len())..];
    let Some(&[first, second]) = rest.first_chunk::<2>() else {
        return Ok(None);
    };
    let opcode = first & 0x0F;
    ensure!(
        first & 0x70 == 0,
        "reserved bit set; no extension was negotiated"
    );
    ensure!(
        first & 0x80 != 0 && opcode != 0,
        "fragmented message; send each message in one frame"
    );
    ensure!(
        matches!(opcode, TEXT | BINARY | CLOSE | PING | PONG),
        "opcode {opcode:#x} is reserved"
    );
    ensure!(second & 0x80 == 0, "masked frame; servers do not mask");
    let extended = &rest[2..];
    let (length, header_bytes): (u64, usize) = match second {
        126 => match extended.first_chunk() {
            Some(length) => (u16::from_be_bytes(*length).into(), 4),
            None => return Ok(None),
        },
        127 => match extended.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        length => (length.into(), 2),
    };
    ensure!(
        length <= CONTROL_BYTES_MAX || opcode < CLOSE,
        "control frame of more than {CONTROL_BYTES_MAX} bytes"
    );
    ensure!(
        length <= PAYLOAD_BYTES_MAX as u64,
        "frame of {length} bytes is over the limit of {PAYLOAD_BYTES_MAX}; send smaller messages"
    );
    let start = at + header_bytes;
    let end = start + length as usize;
    Ok(buffer.get(start..end).map(|payload| Frame {
        opcode,
        payload,
        end,
    }))
}

/// Appends a frame as clients send them: masked with a fresh key (RFC 6455 §5.3).
pub(crate) fn put_client_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    out.push(0x80 | opcode);
    let length = payload.len();
    if length < 126 {
        out.push(0x80 | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(0x80 | 126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    let key = fastrand::u32(..);
    out.extend_from_slice(&key.to_ne_bytes());
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], key);
}

/// XORs eight bytes at a time: the key repeats every four.
fn apply_mask(bytes: &mut [u8], key: u32) {
    let [a, b, c, d] = key.to_ne_bytes();
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d].iter().cycle()) {
        *byte ^= key;
    }
}

/// Describes a close frame by its code, which is 1005 if there is none (RFC 6455 §7.1.5), and its reason.
pub(crate) fn describe_close(payload: &[u8]) -> String {
    let code = payload
        .first_chunk()
        .map_or(1005, |code| u16::from_be_bytes(*code));
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    format!("closed with code {code} {reason}")
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::frame::FrameHeader;

    use super::*;

    /// A frame as the library writes it.
    fn server_frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = FrameHeader {
            opcode: opcode.into(),
            ..FrameHeader::default()
        };
        header.format(payload.len() as u64, &mut out).unwrap();
        [out.as_slice(), payload].concat()
    }

    #[test]
    fn every_length_encoding_is_read_whole_and_written_masked() {
        for length in [0, 1, 7, 8, 125, 126, 127, 65_535, PAYLOAD_BYTES_MAX] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let buffer = server_frame(BINARY, &payload);
            let frame = next_frame(&buffer, 0).unwrap().expect("it is complete");
            assert_eq!((frame.opcode, frame.payload), (BINARY, payload.as_slice()));
            assert_eq!(frame.end, buffer.len());
            let mut out = Vec::new();
            put_client_frame(&mut out, TEXT, &payload);
            let mut cursor = Cursor::new(&out);
            let (header, read) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((u8::from(header.opcode), read), (TEXT, length as u64));
            let start = out.len() - length;
            apply_mask(&mut out[start..], u32::from_ne_bytes(header.mask.unwrap()));
            assert_eq!(&out[start..], payload);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_not_there_yet() {
        let whole = server_frame(TEXT, &[b'x'; 300]);
        for cut in 0..whole.len() {
            assert_eq!(next_frame(&whole[..cut], 0).unwrap(), None, "cut at {cut}");
        }
    }

    #[test]
    fn frames_in_one_buffer_are_read_one_after_another() {
        let buffer = [server_frame(PING, b"p"), server_frame(TEXT, b"two")].concat();
        let first = next_frame(&buffer, 0).unwrap().expect("the ping");
        let second = next_frame(&buffer, first.end).unwrap().expect("the text");
        assert_eq!((first.opcode, first.end), (PING, 3));
        assert_eq!((second.payload, second.end), (&b"two"[..], 8));
    }

    #[test]
    fn frames_that_cannot_be_accepted_are_refused_from_their_header() {
        for (bytes, error) in [
            (&[0xC1, 0][..], "reserved bit"),
            (&[0x83, 0], "opcode"),
            (&[0x01, 0], "fragmented"),
            (&[0x80, 0], "fragmented"),
            (&[0x81, 0x80, 0, 0, 0, 0], "masked"),
            (&[0x89, 0x7E, 0, 126], "control frame"),
            (
                &[0x81, 0x7F, 0, 0, 0, 0, 0, 1, 0, 1],
                "frame of 65537 bytes",
            ),
        ] {
            let refused = next_frame(bytes, 0).expect_err(error);
            assert!(refused.to_string().contains(error), "{refused}");
        }
    }

    #[test]
    fn a_close_is_described_by_its_code_and_reason() {
        let slow = describe_close(b"\x0f\xa1slow consumer");
        assert_eq!(slow, "closed with code 4001 slow consumer");
        assert_eq!(describe_close(b""), "closed with code 1005");
    }
}
