//! The bytes of server-sent events, as far as the proxy must know them.

use serde_json::json;

use super::wire::WireFrame;

/// Takes one event, or a comment, from the front of `buffer` once it is complete.
pub(super) fn take_event(buffer: &mut Vec<u8>) -> Option<WireFrame> {
    let end = buffer.windows(2).position(|two| two == b"\n\n")? + 2;
    let bytes: Vec<u8> = buffer.drain(..end).collect();
    let block = String::from_utf8_lossy(&bytes).into_owned();
    let has_name = block.lines().any(|line| line.starts_with("event:"));
    let data = block.lines().filter_map(|line| line.strip_prefix("data:"));
    let data: Vec<_> = data.map(str::trim_start).collect();
    Some(WireFrame {
        text: (!data.is_empty() && !has_name).then(|| data.join("\n")),
        bytes,
    })
}

/// An event with a frame.
pub(super) fn event(text: &str) -> Vec<u8> {
    format!("data: {text}\n\n").into_bytes()
}

/// The last event of a stream.
pub(super) fn close_event(code: u16, reason: &str) -> Vec<u8> {
    let data = json!({"code": code, "reason": reason});
    format!("event: close\ndata: {data}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_taken_only_when_it_is_complete() {
        let mut buffer = b"id: e:1\ndata: {\"type\":\"t\"}\n".to_vec();
        assert_eq!(take_event(&mut buffer), None);
        buffer.extend_from_slice(b"\n: \n\nda");
        let frame = take_event(&mut buffer).expect("an event");
        assert_eq!(frame.text.as_deref(), Some("{\"type\":\"t\"}"));
        let comment = take_event(&mut buffer).expect("a comment");
        assert_eq!((comment.text, &*comment.bytes), (None, &b": \n\n"[..]));
        assert_eq!(buffer, b"da");
    }

    #[test]
    fn the_last_event_is_no_frame() {
        let mut buffer = close_event(4000, "because");
        let frame = take_event(&mut buffer).expect("an event");
        assert_eq!(frame.text, None);
    }
}
