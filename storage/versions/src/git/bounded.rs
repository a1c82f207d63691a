//! A map of bounded weight that forgets what was not asked for lately.
//!
//! Two generations: what is asked for moves to the young one, and where that has half of what is
//! allowed, the old one is dropped and the young one becomes old.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// See the module.
pub(super) struct BoundedMap<K, V, S> {
    young: HashMap<K, (V, usize), S>,
    old: HashMap<K, (V, usize), S>,
    weight: usize,
    limit: usize,
}

impl<K: Eq + Hash, V: Clone, S: BuildHasher + Default> BoundedMap<K, V, S> {
    /// Holds at most `limit` of whatever the weights count.
    pub(super) fn new(limit: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), weight: 0, limit }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = self.old.remove_entry(key)?;
        self.insert(key, value.clone(), weight);
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V, weight: usize) {
        if weight > self.limit / 2 {
            return;
        }
        if self.weight + weight > self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        if let Some((_, replaced)) = self.young.insert(key, (value, weight)) {
            self.weight = self.weight.saturating_sub(replaced);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;

    use super::BoundedMap;

    #[test]
    fn what_is_asked_for_again_outlives_what_is_not() {
        let mut map = BoundedMap::<u32, u32, RandomState>::new(8);
        map.insert(1, 10, 1);
        map.insert(2, 20, 1);
        for key in 100..120 {
            map.insert(key, 0, 1);
            assert_eq!(map.get(&1), Some(10), "after {key}");
        }
        assert_eq!(map.get(&2), None);
        map.insert(3, 30, 9);
        assert_eq!(map.get(&3), None, "what is heavier than half the limit is not held");
    }
}
