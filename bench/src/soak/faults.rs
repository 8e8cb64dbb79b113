//! Findings that must not be: all are counted, and the first are kept for the report.

use std::sync::Mutex;

use crate::lock;

/// The number of findings that are kept.
const SHOWN_MAX: usize = 10;

/// Findings of many clients.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<(u64, Vec<String>)>);

impl Faults {
    /// Adds one.
    pub(super) fn add(&self, what: String) {
        let mut faults = lock(&self.0);
        faults.0 += 1;
        if faults.1.len() < SHOWN_MAX {
            faults.1.push(what);
        }
    }

    /// Their number.
    pub(super) fn count(&self) -> u64 {
        lock(&self.0).0
    }

    /// The first ones.
    pub(super) fn first(&self) -> Vec<String> {
        lock(&self.0).1.clone()
    }
}
