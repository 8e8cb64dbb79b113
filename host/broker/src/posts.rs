//! Frames that clients post by HTTP to a connection that can only be written to.

use std::{fmt, hint::black_box};

use serde::{Deserialize, Serialize};

/// The length of a [`SendKey`], in bytes.
const KEY_BYTES: usize = 16;

/// The secret that allows its holder to post frames to one connection.
#[derive(Clone, Copy)]
pub struct SendKey([u8; KEY_BYTES]);

/// A frame for a connection, with the key that its sender presents.
#[derive(Clone, Copy, Debug)]
pub struct PostedFrame<'a> {
    /// The ID of the connection, as the sender wrote it.
    pub connection: &'a str,
    /// The key.
    pub key: SendKey,
    /// The text of the frame.
    pub text: &'a str,
}

/// The result of a [`PostedFrame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostOutcome {
    /// The connection has the frame.
    Taken,
    /// The key is that of another connection.
    WrongKey,
    /// There is no such connection, or it takes no frames.
    Unknown,
    /// Too many frames wait for the connection.
    Full,
    /// The frame is larger than the connection accepts, or than one node can send to another.
    TooBig,
    /// The node of the connection did not answer in time, or it is unknown which one it is. The connection may have the frame.
    NoAnswer,
}

impl SendKey {
    /// The key with these bytes, which must be random.
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The key that is written as `text`: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 2 * KEY_BYTES && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }

    /// The key as text, which [`SendKey::parse`] reads.
    pub fn to_text(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// Whether they are the same. The time that it takes does not depend on how many bytes are.
    pub fn is(self, other: Self) -> bool {
        let pairs = self.0.iter().zip(other.0);
        black_box(pairs.fold(0, |found, (one, other)| black_box(found | (one ^ other)))) == 0
    }
}

// Keeps the key out of logs.
impl fmt::Debug for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendKey(****)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_digits_that_say_which_one_it_is() {
        let key = SendKey::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        let text = key.to_text();
        assert_eq!(text, "000102030405060708090a0b0c0d0eff");
        assert!(SendKey::parse(&text).is_some_and(|read| read.is(key)));
        assert!(SendKey::parse(&text.to_uppercase()).is_some_and(|read| read.is(key)));
        for other in [
            "100102030405060708090a0b0c0d0eff",
            "000102030405060708090a0b0c0d0efe",
        ] {
            assert!(SendKey::parse(other).is_some_and(|other| !other.is(key)));
        }
    }

    #[test]
    fn nothing_else_is_a_key_and_no_log_shows_one() {
        for text in [
            "",
            "0",
            "+00102030405060708090a0b0c0d0eff",
            "000102030405060708090a0b0c0d0ef",
            "000102030405060708090a0b0c0d0efff",
            "000102030405060708090a0b0c0d0efg",
            "äääääääääääääääa",
        ] {
            assert!(SendKey::parse(text).is_none(), "{text}");
        }
        let key = SendKey::new([0xab; KEY_BYTES]);
        assert!(!format!("{key:?}").contains("ab"));
    }
}
