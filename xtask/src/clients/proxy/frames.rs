//! The bytes of HTTP heads and WebSocket frames, as far as the proxy must know them.

use super::wire::WireFrame;

/// The opcode of a text frame.
const TEXT: u8 = 1;

/// The opcode of a close frame.
const CLOSE: u8 = 8;

/// Takes the head of a request or response, with its empty line, from the front of `buffer` once it is complete.
pub(super) fn take_head(buffer: &mut Vec<u8>) -> Option<String> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head: Vec<u8> = buffer.drain(..end).collect();
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Takes one frame from the front of `buffer` once it is complete.
pub(super) fn take_frame(buffer: &mut Vec<u8>) -> Option<WireFrame> {
    let (&first, &second) = (buffer.first()?, buffer.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (big_endian(buffer.get(2..4)?), 4),
        127 => (big_endian(buffer.get(2..10)?), 10),
        length => (usize::from(length), 2),
    };
    let mask = if second & 0x80 == 0 {
        [0; 4]
    } else {
        at += 4;
        buffer.get(at - 4..at)?.try_into().ok()?
    };
    let payload = buffer.get(at..at + length)?.iter().zip(mask.iter().cycle());
    let payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
    let text = String::from_utf8(payload).ok();
    Some(WireFrame {
        bytes: buffer.drain(..at + length).collect(),
        text: text.filter(|_| first & 0x0f == TEXT),
    })
}

fn big_endian(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// A text frame of a server.
pub(super) fn text_frame(text: &str) -> Vec<u8> {
    frame(TEXT, text.as_bytes())
}

/// A close frame of a server.
pub(super) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frame(CLOSE, &payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => bytes.push(length),
        (_, Ok(length)) => {
            bytes.push(126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_only_when_it_is_complete() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let bytes = text_frame(&text);
            let mut buffer = bytes[..bytes.len() - 1].to_vec();
            assert_eq!(take_frame(&mut buffer), None, "{length}");
            buffer.push(bytes[bytes.len() - 1]);
            buffer.push(0x81);
            let frame = take_frame(&mut buffer).expect("a frame");
            assert_eq!(
                (frame.text.as_deref(), &frame.bytes),
                (Some(&*text), &bytes)
            );
            assert_eq!(buffer, [0x81]);
        }
    }

    #[test]
    fn the_mask_of_a_client_is_removed() {
        let mut buffer = vec![0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        let frame = take_frame(&mut buffer).expect("a frame");
        assert_eq!(frame.text.as_deref(), Some("hi"));
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let mut buffer = b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest".to_vec();
        let head = take_head(&mut buffer).expect("a head");
        assert!(head.ends_with("b\r\n\r\n"));
        assert_eq!(buffer, b"rest");
        assert_eq!(take_head(&mut buffer), None);
    }

    #[test]
    fn a_close_frame_has_its_code() {
        assert_eq!(close_frame(4000, "x"), [0x88, 3, 0x0f, 0xa0, b'x']);
    }
}
