//! What is known of a model before it is asked: its capabilities and prices, looked up by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use helix_ports::{ModelCapabilities, TokenPrice};
use parking_lot::RwLock;

/// What is known of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// What it can do.
    pub capabilities: ModelCapabilities,
    /// How much it takes is known of this model, and not only what most models take.
    pub knows_size: bool,
    /// What it costs, where known.
    pub price: Option<TokenPrice>,
    /// What a long request costs instead, where that is more: with more input tokens than the first number.
    pub long_price: Option<(u64, TokenPrice)>,
}

impl ModelFacts {
    /// The price of a request with so many input tokens.
    pub fn price_at(&self, input_tokens: u64) -> Option<TokenPrice> {
        match self.long_price {
            Some((above, price)) if input_tokens > above => Some(price),
            _ => self.price,
        }
    }
}

/// So many answers are remembered: names come from clients, who may send any number of them.
const REMEMBERED: usize = 256;

/// Facts by a model's name. Cheap to clone; equal where it is the same one.
#[derive(Clone)]
pub struct ModelLookup(Arc<Lookup>);

struct Lookup {
    find: Box<dyn Fn(&str) -> ModelFacts + Send + Sync>,
    found: RwLock<HashMap<String, ModelFacts>>,
}

impl ModelLookup {
    /// Looks facts up with `find`, which always says the same of a name, and remembers them.
    pub fn new(find: impl Fn(&str) -> ModelFacts + Send + Sync + 'static) -> Self {
        Self(Arc::new(Lookup { find: Box::new(find), found: RwLock::default() }))
    }

    /// What is known of `model`.
    pub fn of(&self, model: &str) -> ModelFacts {
        if let Some(facts) = self.0.found.read().get(model) {
            return facts.clone();
        }
        let facts = (self.0.find)(model);
        let mut found = self.0.found.write();
        if found.len() >= REMEMBERED {
            found.clear();
        }
        found.insert(model.to_owned(), facts.clone());
        facts
    }
}

impl Default for ModelLookup {
    /// Knows nothing of any.
    fn default() -> Self {
        Self::new(|_| ModelFacts::default())
    }
}

impl fmt::Debug for ModelLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelLookup")
    }
}

impl PartialEq for ModelLookup {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price_per_million;

    #[test]
    fn a_long_request_has_a_price_of_its_own() {
        let (short, long) = (price_per_million(1.0, 0.0, 1.0), price_per_million(2.0, 0.0, 2.0));
        let facts = ModelFacts { price: Some(short), long_price: Some((10, long)), ..ModelFacts::default() };
        assert_eq!((facts.price_at(10), facts.price_at(11)), (Some(short), Some(long)));
    }
}
