//! IDs that are unique in the cluster: of nodes, connections and messages.

use std::{
    array, fmt,
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering},
};

use signalbox_telemetry::thread_number;

/// The number of rows that numbers are taken from, so that threads do not contend. Additional threads share rows.
const ROWS: usize = 8;

/// Creates the IDs of one boot of one node.
///
/// Every ID contains a random nonce of the boot, so an ID never recurs after a restart, and data stored under an old
/// one can safely be discarded.
#[derive(Debug)]
pub struct IdSource {
    node: Box<str>,
    /// What all IDs begin with: the nonce and a hyphen.
    prefix: [u8; PREFIX_BYTES],
    rows: [Row; ROWS],
}

/// The digits of a nonce, and a hyphen.
const PREFIX_BYTES: usize = NONCE_DIGITS + 1;
const NONCE_DIGITS: usize = 12;

/// Maximum length of an ID: the prefix and the digits of a number.
const ID_BYTES_MAX: usize = PREFIX_BYTES + 16;

/// An ID of a message or a connection, as text. It is made for every message, so it is not on the heap.
#[derive(Clone, Copy)]
pub struct UniqueId {
    /// Written from the end.
    text: [u8; ID_BYTES_MAX],
    start: u8,
}

/// The next number of a row, on its own cache line. The row itself is the number modulo [`ROWS`].
#[derive(Debug)]
#[repr(align(64))]
struct Row(AtomicU64);

impl IdSource {
    /// Creates a source for the node called `node_id`, with the `nonce` of this boot.
    pub fn new(node_id: &str, nonce: u64) -> Self {
        let mut prefix = [b'-'; PREFIX_BYTES];
        write_hex(&mut prefix[..NONCE_DIGITS], nonce);
        let nonce = &prefix[..NONCE_DIGITS];
        let node = format!("{node_id}-{}", String::from_utf8_lossy(nonce));
        Self {
            node: node.into(),
            prefix,
            rows: array::from_fn(|row| Row(AtomicU64::new((ROWS + row) as u64))),
        }
    }

    /// The server ID: the configured name and the nonce.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether `id` is one of a message or a connection of this boot.
    pub fn made(&self, id: &str) -> bool {
        id.as_bytes().starts_with(&self.prefix)
    }

    /// A new ID for a message or a connection, at most 29 characters long.
    pub fn next(&self) -> UniqueId {
        let number = self.rows[row()].0.fetch_add(ROWS as u64, Ordering::Relaxed);
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1) as usize;
        let start = ID_BYTES_MAX - PREFIX_BYTES - digits;
        let mut text = [0; ID_BYTES_MAX];
        text[start..][..PREFIX_BYTES].copy_from_slice(&self.prefix);
        write_hex(&mut text[start + PREFIX_BYTES..], number);
        UniqueId {
            text,
            start: start as u8,
        }
    }
}

/// Writes the last digits of `number`, as many as there is room for.
fn write_hex(room: &mut [u8], mut number: u64) {
    for place in room.iter_mut().rev() {
        *place = b"0123456789abcdef"[(number % 16) as usize];
        number /= 16;
    }
}

impl Deref for UniqueId {
    type Target = str;

    fn deref(&self) -> &str {
        // It is ASCII.
        std::str::from_utf8(&self.text[usize::from(self.start)..]).unwrap_or_default()
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The row of this thread.
fn row() -> usize {
    thread_number() % ROWS
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    #[test]
    fn names_made_by_several_threads_differ() {
        let ids = IdSource::new("a", 1);
        let made = thread::scope(|scope| {
            let makers: Vec<_> = (0..2 * ROWS + 1)
                .map(|_| {
                    scope.spawn(|| (0..100).map(|_| ids.next().to_string()).collect::<Vec<_>>())
                })
                .collect();
            makers
                .into_iter()
                .flat_map(|maker| maker.join().unwrap())
                .collect::<Vec<_>>()
        });
        let different: HashSet<_> = made.iter().collect();
        assert_eq!(different.len(), made.len());
    }

    #[test]
    fn names_differ_within_a_boot_and_between_boots() {
        let (one, two) = (IdSource::new("a", 1), IdSource::new("a", 2));
        assert_ne!(*one.next(), *one.next());
        assert_ne!(one.node(), two.node());
        assert_eq!(one.node(), "a-000000000001");
        let id = IdSource::new("a", 1).next();
        assert_ne!(*id, *two.next());
        assert!(one.made(&id) && !two.made(&id));
    }

    #[test]
    fn an_id_is_the_nonce_and_a_number_in_hexadecimal() {
        let ids = IdSource::new("a", 0x1234_5678_9abc_def0);
        assert_eq!(ids.node(), "a-56789abcdef0");
        let row = row();
        ids.rows[row].0.store(0x10, Ordering::Relaxed);
        assert_eq!(&*ids.next(), "56789abcdef0-10");
        ids.rows[row].0.store(0, Ordering::Relaxed);
        assert_eq!(&*ids.next(), "56789abcdef0-0");
        ids.rows[row].0.store(u64::MAX, Ordering::Relaxed);
        let longest = ids.next();
        assert_eq!(&*longest, "56789abcdef0-ffffffffffffffff");
        assert_eq!(longest.len(), ID_BYTES_MAX);
    }
}
