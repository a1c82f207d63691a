//! Whether a call is with somebody who may bill it, for the router and for whoever has set something aside for the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const NOBODY: u8 = 0;
const SOMEBODY: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Whether somebody is asked for a call. Cheap to clone; every clone is of the same call.
#[derive(Clone, Debug, Default)]
pub struct Asking(Arc<AtomicU8>);

impl Asking {
    /// Somebody is asked from now on. False where the call was given up: then nobody may be.
    pub fn begin(&self) -> bool {
        self.change(NOBODY, SOMEBODY) != GIVEN_UP
    }

    /// Whoever was asked certainly did not bill it.
    pub fn end(&self) {
        self.change(SOMEBODY, NOBODY);
    }

    /// Nobody is to be asked any more. True where the call is certainly not billed.
    pub fn give_up(&self) -> bool {
        self.change(NOBODY, GIVEN_UP) != SOMEBODY
    }

    /// What it was before.
    fn change(&self, from: u8, to: u8) -> u8 {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).unwrap_or_else(|other| other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_given_up_is_asked_of_nobody_and_one_that_is_under_way_may_be_billed() {
        let asking = Asking::default();
        assert!(asking.begin() && asking.begin() && !asking.give_up());
        asking.end();
        assert!(asking.begin(), "it was not billed and is asked again");
        asking.end();
        assert!(asking.give_up() && asking.give_up() && !asking.begin());
        asking.end();
        assert!(!asking.begin(), "it stays given up");
    }
}
