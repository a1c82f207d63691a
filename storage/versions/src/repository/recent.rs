//! What was used lately.

use std::collections::HashMap;
use std::hash::Hash;

/// A bounded map in two generations: what is used moves to the younger one, and when that is full the older one goes.
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Recent<K, V> {
    /// Keeps the last `limit` values at least, twice as many at most.
    pub(crate) fn new(limit: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), limit }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.put(*key, value.clone());
        Some(value)
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut recent = Recent::new(3);
        for key in 0..100 {
            recent.put(key, key * 2);
            assert_eq!(recent.get(&0), Some(0), "0 is used all the time");
        }
        assert_eq!((recent.get(&99), recent.get(&50)), (Some(198), None));
        assert!(recent.young.len() + recent.old.len() <= 6);
    }
}
