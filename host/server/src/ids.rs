//! IDs that are unique in the cluster: of nodes, connections and messages.

use std::{
    array,
    fmt::Write,
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
    nonce: Box<str>,
    rows: [Row; ROWS],
}

/// The next number of a row, on its own cache line. The row itself is the number modulo [`ROWS`].
#[derive(Debug)]
#[repr(align(64))]
struct Row(AtomicU64);

impl IdSource {
    /// Creates a source for the node called `node_id`, with the `nonce` of this boot.
    pub fn new(node_id: &str, nonce: u64) -> Self {
        let nonce = format!("{:012x}", nonce & 0xffff_ffff_ffff);
        Self {
            node: format!("{node_id}-{nonce}").into(),
            nonce: nonce.into(),
            rows: array::from_fn(|row| Row(AtomicU64::new((ROWS + row) as u64))),
        }
    }

    /// The server ID: the configured name and the nonce.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A new ID for a message or a connection, at most 29 characters long.
    pub fn next(&self) -> String {
        let number = self.rows[row()].0.fetch_add(ROWS as u64, Ordering::Relaxed);
        let mut id = String::with_capacity(self.nonce.len() + 12);
        id.push_str(&self.nonce);
        // Writing into a String cannot fail.
        let _ = write!(id, "-{number:x}");
        id
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
                .map(|_| scope.spawn(|| (0..100).map(|_| ids.next()).collect::<Vec<_>>()))
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
        assert_ne!(one.next(), one.next());
        assert_ne!(one.node(), two.node());
        assert_eq!(one.node(), "a-000000000001");
        assert_ne!(IdSource::new("a", 1).next(), two.next());
    }
}
