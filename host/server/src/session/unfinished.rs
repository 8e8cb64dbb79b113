//! The memory that unfinished messages take, bounded for the node.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that each connection may keep without a charge, so that a node at its limit still accepts messages of common
/// size.
const FREE_BYTES: usize = 4 << 10;

/// The bytes charged to all connections of a node.
#[derive(Debug, Default)]
pub struct UnfinishedBytes(AtomicUsize);

/// The share of one connection or request, released when it is dropped.
#[derive(Debug)]
pub(crate) struct UnfinishedShare {
    of: Arc<UnfinishedBytes>,
    charged: usize,
}

impl UnfinishedShare {
    pub(crate) fn new(of: Arc<UnfinishedBytes>) -> Self {
        Self { of, charged: 0 }
    }

    /// Charges the connection with `kept` bytes in total. Returns `false` if it needs more than before and all
    /// connections together would exceed `most`; 0 means no limit.
    pub(crate) fn set(&mut self, kept: usize, most: usize) -> bool {
        let charge = kept.saturating_sub(FREE_BYTES);
        if charge == self.charged {
            return true;
        }
        let total = &self.of.0;
        let all = if charge > self.charged {
            let more = charge - self.charged;
            total.fetch_add(more, Ordering::Relaxed) + more
        } else {
            total.fetch_sub(self.charged - charge, Ordering::Relaxed);
            0
        };
        self.charged = charge;
        most == 0 || all <= most
    }
}

impl Drop for UnfinishedShare {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.charged, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_goes_over_the_bound_is_the_one_that_is_refused() {
        let all = Arc::<UnfinishedBytes>::default();
        let (mut one, mut two) = (
            UnfinishedShare::new(all.clone()),
            UnfinishedShare::new(all.clone()),
        );
        let most = 60 << 10;
        assert!(one.set(FREE_BYTES + (40 << 10), most));
        assert!(!two.set(FREE_BYTES + (40 << 10), most));
        // The connection may release some bytes, and others may keep a few.
        assert!(two.set(FREE_BYTES + (30 << 10), most));
        assert!(UnfinishedShare::new(all.clone()).set(FREE_BYTES, most));
        drop(two);
        assert!(one.set(FREE_BYTES + most, most));
        assert!(one.set(usize::MAX, 0), "0 is no limit");
        drop(one);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
