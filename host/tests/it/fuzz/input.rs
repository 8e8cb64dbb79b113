//! Inputs, and their mutations.

use std::fmt;

use proptest::{collection::vec, prelude::*, sample::Index};

/// Longest input, in bytes: within the limits of a frame and of a request head.
const BYTES_MAX: usize = 12 << 10;

/// Maximum number of changes to one seed.
const CHANGES_MAX: usize = 6;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Input(pub(super) Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl Input {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, with U+FFFD in place of invalid UTF-8.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Repeats a part of this many bytes this many times.
    Repeat(Index, usize, usize),
    /// Continues with the rest of another seed.
    Cross(Index, Index, Index),
}

/// Mutations of `seeds`, with `words` inserted.
pub(super) fn mutated(seeds: &[Input], words: &[&'static str]) -> impl Strategy<Value = Input> {
    let seeds = seeds.to_vec();
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    (any::<Index>(), vec(change(words), 0..CHANGES_MAX)).prop_map(move |(seed, changes)| {
        let mut bytes = seed.get(&seeds).0.clone();
        for change in &changes {
            change.apply(&mut bytes, &seeds);
            bytes.truncate(BYTES_MAX);
        }
        Input(bytes)
    })
}

fn change(words: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        4 => (at(), prop::sample::select(words)).prop_map(|(at, word)| Change::Insert(at, word)),
        1 => (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (at(), 1..20_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (at(), 1..40_usize, 1..200_usize)
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        1 => (at(), at(), at()).prop_map(|(at, seed, from)| Change::Cross(at, seed, from)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Input]) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Self::Put(at, byte) => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Self::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = place(at);
                let end = bytes.len().min(at + count);
                bytes.drain(at..end);
            }
            Self::Repeat(at, length, times) => {
                let at = place(at);
                let end = bytes.len().min(at + length);
                let more = bytes[at..end].repeat(*times);
                bytes.splice(end..end, more);
            }
            Self::Cross(at, seed, from) => {
                let at = place(at);
                let other = &seed.get(seeds).0;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}
