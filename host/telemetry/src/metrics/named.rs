//! Named cells whose names come from outside; their number is bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

/// The name under which everything without a separate cell is counted.
pub const OTHER: &str = "other";

/// At most `MAX` cells, by name. Finding one takes no lock. Creating one copies the table, which happens at most `MAX`
/// times: a cell lives as long as the table, because counters must not go backwards.
#[derive(Debug)]
pub struct Named<T, const MAX: usize> {
    cells: ArcSwap<BTreeMap<Box<str>, Arc<T>>>,
    growing: Mutex<()>,
}

impl<T, const MAX: usize> Default for Named<T, MAX> {
    fn default() -> Self {
        Self {
            cells: ArcSwap::default(),
            growing: Mutex::default(),
        }
    }
}

impl<T, const MAX: usize> Named<T, MAX> {
    /// Returns the result of `with` for the cell of `name`, or `None` if there is no such cell.
    pub fn get<R>(&self, name: &str, with: impl FnOnce(&T) -> R) -> Option<R> {
        self.cells.load().get(name).map(|cell| with(cell))
    }

    /// Returns the result of `with` for the cell of `name`, which is created if it is missing. Returns `None` if that
    /// would be more than `MAX` cells.
    pub fn get_or_make<R>(
        &self,
        name: &str,
        make: impl FnOnce() -> T,
        with: impl FnOnce(&T) -> R,
    ) -> Option<R> {
        if let Some(cell) = self.cells.load().get(name) {
            return Some(with(cell));
        }
        self.make(name, make).map(|cell| with(&cell))
    }

    /// All cells, sorted by name.
    pub fn all(&self) -> Arc<BTreeMap<Box<str>, Arc<T>>> {
        self.cells.load_full()
    }

    fn make(&self, name: &str, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = self.cells.load_full();
        if let Some(cell) = cells.get(name) {
            return Some(cell.clone());
        }
        if cells.len() >= MAX {
            return None;
        }
        let cell = Arc::new(make());
        let mut grown = BTreeMap::clone(&cells);
        grown.insert(name.into(), cell.clone());
        self.cells.store(Arc::new(grown));
        Some(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Counter, *};

    #[test]
    fn cells_that_many_threads_make_at_a_time_are_made_once_and_never_more_than_may_be() {
        let counters = Named::<Counter, 4>::default();
        let refused = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..1000 {
                        let name = format!("c{}", round % 5);
                        counters
                            .get_or_make(&name, Counter::default, Counter::increment)
                            .unwrap_or_else(|| refused.increment());
                    }
                });
            }
        });
        let all = counters.all();
        assert_eq!(all.len(), 4);
        let counted: Vec<u64> = all.values().map(|counter| counter.get()).collect();
        assert_eq!((counted, refused.get()), (vec![1600; 4], 1600));
        assert_eq!(counters.get("never made", Counter::get), None);
    }
}
