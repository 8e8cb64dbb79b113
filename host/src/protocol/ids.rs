//! Names that are unique in the cluster: of nodes, connections and messages.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Makes the names of one boot of one node.
///
/// Every name carries a random nonce of the boot, so a name never comes back after a restart, and what was stored
/// under an old one can be thrown away safely.
#[derive(Debug)]
pub struct IdSource {
    node: Box<str>,
    nonce: Box<str>,
    next: AtomicU64,
}

impl IdSource {
    /// For the node called `node_id`, with the `nonce` of this boot.
    pub fn new(node_id: &str, nonce: u64) -> Self {
        let nonce = format!("{:012x}", nonce & 0xffff_ffff_ffff);
        Self {
            node: format!("{node_id}-{nonce}").into(),
            nonce: nonce.into(),
            next: AtomicU64::new(1),
        }
    }

    /// The server ID: the configured name and the nonce.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A new name for a message or a connection, at most 29 characters.
    pub fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(self.nonce.len() + 12);
        id.push_str(&self.nonce);
        // Writing into a String cannot fail.
        let _ = write!(id, "-{number:x}");
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_within_a_boot_and_between_boots() {
        let (one, two) = (IdSource::new("a", 1), IdSource::new("a", 2));
        assert_ne!(one.next(), one.next());
        assert_ne!(one.node(), two.node());
        assert_eq!(one.node(), "a-000000000001");
        assert_ne!(IdSource::new("a", 1).next(), two.next());
    }
}
