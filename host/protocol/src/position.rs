//! Places in the history of a room or a user.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Longest epoch, in bytes.
const EPOCH_BYTES_MAX: usize = 32;

/// The most digits of an offset.
const OFFSET_DIGITS_MAX: usize = 16;

/// The largest offset that every client can represent: JavaScript's numbers are exact up to here.
pub const OFFSET_MAX: u64 = (1 << 53) - 1;

/// The name of one lifetime of a history. If a history is lost or reset, its offsets start again under another epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The epoch named `text`, if it is 1 to 32 of `A-Z a-z 0-9`.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = (1..=EPOCH_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_valid.then(|| Self(text.into()))
    }

    /// The epoch with this random number.
    pub fn random(number: u64) -> Self {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut text = String::new();
        let mut rest = number;
        while text.is_empty() || rest > 0 {
            text.push(char::from(DIGITS[(rest % 36) as usize]));
            rest /= 36;
        }
        Self(text.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not an epoch"))
    }
}

/// A place in a history: after its message number `offset`, or before the first one if that is 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The lifetime of the history.
    pub epoch: Epoch,
    /// The number of the last message before this place. Messages are numbered from 1.
    pub offset: u64,
}

impl Position {
    /// Parses `<epoch>:<offset>`, as clients write it in a query. The offset is 1 to 16 digits, and at most [`OFFSET_MAX`].
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, offset) = text.split_once(':')?;
        let epoch = Epoch::parse(epoch)?;
        let is_number = (1..=OFFSET_DIGITS_MAX).contains(&offset.len())
            && offset.bytes().all(|byte| byte.is_ascii_digit());
        let offset = is_number.then(|| offset.parse().ok())??;
        (offset <= OFFSET_MAX).then_some(Self { epoch, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_in_a_query_is_an_epoch_and_a_number() {
        for (text, offset) in [("e:0", 0), ("e:7", 7), ("e:9007199254740991", OFFSET_MAX)] {
            let epoch = Epoch::parse("e").unwrap();
            assert_eq!(Position::parse(text), Some(Position { epoch, offset }));
        }
        for text in [
            "",
            ":",
            "e",
            "e:",
            ":1",
            "e:-1",
            "e:+1",
            "e: 1",
            "e:1 ",
            "e:1.0",
            "e:x",
            "e:1:2",
            "é:1",
            "e f:1",
            "e:9007199254740992",
            "e:00000000000000001",
            "e:18446744073709551616",
        ] {
            assert_eq!(Position::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_epoch_is_1_to_32_letters_and_digits() {
        for good in ["k3v9", "A", &"x".repeat(32)] {
            assert_eq!(Epoch::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ä", "a\"", &"x".repeat(33)] {
            assert_eq!(Epoch::parse(bad), None, "{bad:?}");
        }
        for number in [0, 35, 36, u64::MAX] {
            let epoch = Epoch::random(number);
            assert_eq!(Epoch::parse(epoch.as_str()), Some(epoch));
        }
    }
}
