//! Values that many descriptors share: each is in memory once, as long as it is used.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Fewer values than this are not worth clearing.
const FEW: usize = 1024;

/// The values in use, and some that are no longer used.
pub struct Interned<T: ?Sized>(Mutex<Table<T>>);

struct Table<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// At this number, unused values are dropped.
    full: usize,
}

impl<T: Eq + Hash + ?Sized> Interned<T> {
    pub fn new() -> Interned<T> {
        Interned(Mutex::new(Table { values: HashSet::new(), full: FEW }))
    }

    /// The value equal to `value`, if it exists.
    pub fn find<Q: Eq + Hash + ?Sized>(&self, value: &Q) -> Option<Arc<T>>
    where
        Arc<T>: Borrow<Q>,
    {
        self.lock().values.get(value).cloned()
    }

    /// The existing value equal to `new`, or `new` itself.
    pub fn share(&self, new: Arc<T>) -> Arc<T> {
        let mut table = self.lock();
        if let Some(known) = table.values.get(&new) {
            return Arc::clone(known);
        }
        if table.values.len() >= table.full {
            table.clear();
        }
        table.values.insert(Arc::clone(&new));
        new
    }

    /// Drops unused values.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Eq + Hash + ?Sized> Table<T> {
    fn clear(&mut self) {
        self.values.retain(|value| Arc::strong_count(value) > 1);
        self.full = FEW.max(self.values.len().saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_stored_once_and_unused_ones_are_dropped() {
        let interned: Interned<str> = Interned::new();
        let get = |text: &str| interned.find(text).unwrap_or_else(|| interned.share(Arc::from(text)));
        let kept: Vec<Arc<str>> = (0..FEW / 2).map(|n| get(&n.to_string())).collect();
        assert!(Arc::ptr_eq(&kept[7], &get("7")));
        for n in 0..100 * FEW {
            get(&n.to_string());
        }
        assert!(interned.lock().values.len() <= 2 * FEW);
        assert!(Arc::ptr_eq(&kept[7], &get("7")));
    }
}
