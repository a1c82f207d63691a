//! What is known of models by their names, which come from clients: they may send any number of them, of any length.

use std::collections::BTreeMap;

use parking_lot::RwLock;

/// So many models are remembered.
const REMEMBERED: usize = 256;
/// No model has a longer name, in bytes.
const LONGEST_NAME: usize = 512;

/// One fact of each model.
#[derive(Debug)]
pub(super) struct ByModel<T>(RwLock<BTreeMap<String, T>>);

impl<T: Copy> ByModel<T> {
    /// What is known of `model`.
    pub fn get(&self, model: &str) -> Option<T> {
        self.0.read().get(model).copied()
    }

    /// False of names that no model has; nothing is remembered of them.
    pub fn takes(model: &str) -> bool {
        model.len() <= LONGEST_NAME
    }

    /// Remembers `fact` in place of what was known. All others are forgotten where they are too many.
    pub fn put(&self, model: &str, fact: T) {
        if !Self::takes(model) {
            return;
        }
        let mut known = self.0.write();
        if known.len() >= REMEMBERED && !known.contains_key(model) {
            known.clear();
        }
        known.insert(model.to_owned(), fact);
    }

    /// Forgets `model`.
    pub fn remove(&self, model: &str) {
        self.0.write().remove(model);
    }
}

impl<T> Default for ByModel<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_count_and_length() {
        let known = ByModel::default();
        for at in 0..=REMEMBERED {
            known.put(&format!("m{at}"), at);
        }
        known.put(&"x".repeat(LONGEST_NAME + 1), 0);
        assert_eq!((known.0.read().len(), known.get("m0"), known.get(&format!("m{REMEMBERED}"))), (1, None, Some(REMEMBERED)));
    }
}
