//! Decodes frames in pieces of any size.

use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0x12, 0xff, 0, 0x7a];

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

/// Decodes `bytes`, `step` bytes at a time, and counts the bytes seen at an error.
fn decode(bytes: &[u8], step: usize, max: usize) -> (Vec<Incoming>, Option<(DecodeError, usize)>) {
    let mut decoder = Decoder::new(max);
    let mut whole = Vec::new();
    for (index, mut piece) in bytes.chunks(step).enumerate() {
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(incoming)) => whole.push(incoming),
                Ok(None) => break,
                Err(error) => return (whole, Some((error, (index + 1) * step))),
            }
        }
        assert!(piece.is_empty());
        assert!(decoder.kept_bytes() <= max);
    }
    (whole, None)
}

#[test]
fn messages_and_control_frames_come_out_as_they_went_in() {
    let long = "ä".repeat(40_000);
    let bytes = [
        frame(FIN | TEXT, b"one"),
        frame(TEXT, "zwei \u{1f600}".as_bytes().split_at(7).0),
        frame(FIN | PING, b"now"),
        frame(CONTINUATION, b""),
        frame(
            FIN | CONTINUATION,
            "zwei \u{1f600}".as_bytes().split_at(7).1,
        ),
        frame(FIN | BINARY, &[0xff; 300]),
        frame(FIN | TEXT, long.as_bytes()),
        frame(FIN | PONG, b"x"),
        frame(FIN | CLOSE, b"\x03\xe8bye"),
    ]
    .concat();
    for step in [1, 2, 3, 5, 7, 64, 1_000, bytes.len()] {
        let (whole, error) = decode(&bytes, step, 100_000);
        assert_eq!(error, None);
        let expected = [
            Incoming::Text("one".to_owned()),
            Incoming::Fragment(7),
            Incoming::Ping(b"now".to_vec()),
            Incoming::Fragment(0),
            Incoming::Text("zwei \u{1f600}".to_owned()),
            Incoming::Binary(vec![0xff; 300]),
            Incoming::Text(long.clone()),
            Incoming::Pong,
            Incoming::Close {
                code: 1000,
                reason: "bye".to_owned(),
            },
        ];
        assert!(whole == expected, "{step} bytes at a time");
    }
}

#[test]
fn a_broken_protocol_shows_with_the_first_byte_that_breaks_it() {
    let violation = |bytes: &[u8]| match decode(bytes, 1, 1_000).1 {
        Some((DecodeError::Violation(_), seen)) => seen,
        other => panic!("{other:?}"),
    };
    let text = frame(TEXT, b"x");
    for (bytes, seen) in [
        (vec![FIN | TEXT, 1, b'x'], 2),
        (frame(FIN | 0x40 | TEXT, b"x"), 2),
        (frame(FIN | 3, b"x"), 2),
        (frame(FIN | 11, b"x"), 2),
        (frame(FIN | CONTINUATION, b"x"), 2),
        (frame(PING, b"x"), 2),
        (frame(FIN | PING, &[0; 126]), 2),
        ([text.clone(), frame(FIN | BINARY, b"x")].concat(), 9),
        (
            vec![FIN | BINARY, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
            14,
        ),
        (frame(FIN | CLOSE, b"\x03"), 7),
        (frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 8),
        (frame(FIN | CLOSE, &999_u16.to_be_bytes()), 8),
        (frame(FIN | CLOSE, &2999_u16.to_be_bytes()), 8),
        (frame(FIN | CLOSE, &5000_u16.to_be_bytes()), 8),
    ] {
        assert_eq!(violation(&bytes), seen, "{bytes:x?}");
    }
}

#[test]
fn text_that_is_not_utf8_shows_with_the_first_byte_that_no_text_has() {
    for (text, seen) in [
        (&b"ab\xff\xffcd"[..], 3),
        // Beyond the last code point, a surrogate, an overlong form.
        (b"\xf4\x90\x80\x80", 2),
        (b"\xed\xa0\x80", 2),
        (b"\xc0\x80", 1),
    ] {
        let (_, error) = decode(&frame(FIN | TEXT, text), 1, 1_000);
        assert_eq!(error, Some((DecodeError::NotUtf8, 6 + seen)), "{text:x?}");
    }
    let cut = [frame(TEXT, b"\xc3"), frame(FIN | CONTINUATION, b"x")].concat();
    assert_eq!(decode(&cut, 1, 9).1, Some((DecodeError::NotUtf8, 14)));
    let cut = frame(FIN | TEXT, b"\xc3");
    assert_eq!(decode(&cut, 7, 9).1, Some((DecodeError::NotUtf8, 7)));
    let reason = frame(FIN | CLOSE, b"\x03\xe8\xff");
    assert_eq!(decode(&reason, 9, 9).1, Some((DecodeError::NotUtf8, 9)));
}

#[test]
fn a_message_over_the_limit_shows_with_its_header_and_takes_no_memory() {
    assert_eq!(decode(&frame(FIN | BINARY, &[0; 9]), 99, 9).1, None);
    let large = [FIN | BINARY, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(decode(&large, 1, 9).1, Some((DecodeError::TooBig, 14)));
    let two = [frame(TEXT, b"12345"), frame(FIN | CONTINUATION, b"12345")].concat();
    assert_eq!(decode(&two, 1, 9).1, Some((DecodeError::TooBig, 17)));
    let mut decoder = Decoder::new(1 << 20);
    let announced = [FIN | BINARY, 0xff, 0, 0, 0, 0, 0, 0x0f, 0, 0, 1, 2, 3, 4, 5];
    assert_eq!(decoder.decode(&mut &announced[..]), Ok(None));
    assert!(decoder.is_midway() && decoder.kept_bytes() < 64);
}

#[test]
fn only_a_close_frame_counts_while_messages_are_skipped() {
    let mut decoder = Decoder::new(10);
    decoder.decode(&mut &frame(TEXT, b"begun")[..]).unwrap();
    decoder.skip_messages();
    let bytes = [
        frame(FIN | CONTINUATION, &[b'x'; 1_000]),
        frame(FIN | TEXT, b"\xff"),
        frame(FIN | PING, b"x"),
        frame(FIN | CLOSE, b""),
    ]
    .concat();
    let close = Incoming::Close {
        code: NO_CODE,
        reason: String::new(),
    };
    assert_eq!(decoder.decode(&mut &bytes[..]), Ok(Some(close)));
    assert_eq!(decoder.kept_bytes(), 0);
}

proptest! {
    #[test]
    fn how_bytes_are_cut_makes_no_difference(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::collection::vec(
                (any::<bool>(), 0..11_u8, proptest::collection::vec(any::<u8>(), 0..140)),
                0..8,
            )
            .prop_map(|frames| {
                let frames = frames.iter();
                frames
                    .flat_map(|(fin, opcode, payload)| frame(u8::from(*fin) << 7 | opcode, payload))
                    .collect()
            }),
        ],
        step in 1..50_usize,
    ) {
        let whole = decode(&bytes, bytes.len().max(1), 200);
        let cut = decode(&bytes, step, 200);
        // If a message arrives in pieces, the error may show before a frame of it is complete.
        prop_assert!(whole.0.starts_with(&cut.0) || cut.0.starts_with(&whole.0));
        prop_assert_eq!(whole.1.map(|(error, _)| error), cut.1.map(|(error, _)| error));
    }

    #[test]
    fn any_text_in_any_fragments_is_read(text in ".{0,80}", cuts in proptest::collection::vec(0..320_usize, 0..6)) {
        let mut bytes = Vec::new();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for (index, cut) in cuts.iter().enumerate() {
            let opcode = if index == 0 { TEXT } else { CONTINUATION };
            bytes.extend(frame(opcode, &text.as_bytes()[from..*cut]));
            from = *cut;
        }
        let last = if cuts.is_empty() { TEXT } else { CONTINUATION };
        bytes.extend(frame(FIN | last, &text.as_bytes()[from..]));
        let (whole, error) = decode(&bytes, 11, 1_000);
        prop_assert_eq!(error, None);
        prop_assert_eq!(whole.last(), Some(&Incoming::Text(text)));
    }
}
