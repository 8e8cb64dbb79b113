//! WebSocket frames (RFC 6455 §5): encoding them, and decoding those of a client.
//!
//! This module does no I/O: [`Decoder`] is fed bytes in pieces of any size, and the encoders return bytes.

mod decoder;

use bytes::Bytes;
pub use decoder::{DecodeError, Decoder, Incoming};

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest reason of a close frame, in bytes: a control frame without the two bytes of the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// The code that stands for a close frame without a code (RFC 6455 §7.1.5).
pub const NO_CODE: u16 = 1005;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Length of the header of a whole, unmasked frame with a payload of `payload_len` bytes.
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Appends the header of a whole, unmasked text frame with a payload of `payload_len` bytes.
pub fn push_text_header(payload_len: usize, to: &mut Vec<u8>) {
    push_header(TEXT, payload_len, to);
}

/// A ping without a payload.
pub fn ping() -> Bytes {
    whole(PING, &[])
}

/// The answer to a ping with `payload`, which has at most [`CONTROL_BYTES_MAX`] bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    whole(PONG, payload)
}

/// A close frame. A `reason` longer than [`CLOSE_REASON_BYTES_MAX`] is truncated; with [`NO_CODE`], the frame is empty.
pub fn close(code: u16, reason: &str) -> Bytes {
    if code == NO_CODE {
        return whole(CLOSE, &[]);
    }
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    whole(CLOSE, &payload)
}

fn whole(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(header_len(payload.len()) + payload.len());
    push_header(opcode, payload.len(), &mut frame);
    frame.extend_from_slice(payload);
    frame.into()
}

fn push_header(opcode: u8, payload_len: usize, to: &mut Vec<u8>) {
    to.push(FIN | opcode);
    // The conversions are exact in each arm.
    match payload_len {
        0..=125 => to.push(payload_len as u8),
        126..=0xffff => {
            to.push(126);
            to.extend_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            to.push(127);
            to.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_fewest_bytes() {
        for (payload_len, header) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xffff, &[0x81, 126, 0xff, 0xff]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut encoded = Vec::new();
            push_text_header(payload_len, &mut encoded);
            assert_eq!(encoded, header);
            assert_eq!(header_len(payload_len), header.len());
        }
    }

    #[test]
    fn a_close_frame_holds_its_code_and_as_much_of_the_reason_as_fits() {
        assert_eq!(close(4000, "bye")[..], *b"\x88\x05\x0f\xa0bye");
        assert_eq!(close(NO_CODE, "")[..], *b"\x88\x00");
        let long = close(4000, &"ä".repeat(100));
        assert_eq!(long.len(), 2 + 2 + 122, "no character is cut in two");
    }
}
