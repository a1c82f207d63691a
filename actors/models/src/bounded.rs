//! A map that forgets what was used least recently once it is full.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most so much of it, by the weights of its values.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    most: usize,
    weight: usize,
    uses: u64,
    values: HashMap<K, (V, usize, u64)>,
    order: BTreeMap<u64, K>,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    /// Empty, for values that weigh `most` together.
    pub fn new(most: usize) -> Self {
        Self { most, weight: 0, uses: 0, values: HashMap::new(), order: BTreeMap::new() }
    }

    /// The value, which counts as used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        self.uses += 1;
        let (value, _, used) = self.values.get_mut(key)?;
        self.order.remove(used);
        self.order.insert(self.uses, key.clone());
        *used = self.uses;
        Some(value)
    }

    /// The value without counting it as used.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(value, _, _)| value)
    }

    /// Everything, in no order; nothing of it counts as used.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.values.iter().map(|(key, (value, _, _))| (key, value))
    }

    /// Keeps a value; the least recently used ones go until there is room. One heavier than everything is not kept.
    pub fn put(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.most {
            return;
        }
        while self.weight + weight > self.most
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        self.uses += 1;
        self.weight += weight;
        self.order.insert(self.uses, key.clone());
        self.values.insert(key, (value, weight, self.uses));
    }

    /// Forgets a value.
    pub fn remove(&mut self, key: &K) {
        if let Some((_, weight, used)) = self.values.remove(key) {
            self.weight -= weight;
            self.order.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_too_heavy_is_not_kept() {
        let mut map = Bounded::new(3);
        map.put("a", 1, 1);
        map.put("b", 2, 1);
        map.put("c", 3, 1);
        assert_eq!(map.get(&"a"), Some(&mut 1));
        map.put("d", 4, 2);
        assert_eq!([map.peek(&"a"), map.peek(&"b"), map.peek(&"c"), map.peek(&"d")], [Some(&1), None, None, Some(&4)]);
        map.put("e", 5, 4);
        assert_eq!(map.peek(&"e"), None);
        map.put("d", 6, 1);
        assert_eq!((map.weight, map.order.len(), map.values.len()), (2, 2, 2));
    }
}
