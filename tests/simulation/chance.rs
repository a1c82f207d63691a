//! Choices, all of them made from one seed.

use std::time::Duration;

use crate::entropy::draw;

/// A stream of choices.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5eed_0000_0000_0000)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        draw(&mut self.0) % limit
    }

    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("below a count")
    }

    /// From a tenth of a second to half a minute: shorter than a lease as often as longer.
    pub fn while_(&mut self) -> Duration {
        let most = [1_000, 5_000, 15_000, 30_000][self.pick(4)];
        Duration::from_millis(self.between(100, most))
    }
}
