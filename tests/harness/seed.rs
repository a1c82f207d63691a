//! Random points that can be chosen again, and how many of them.

use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How often a test repeats what it does by chance: `few`, or what HELIX_CAMPAIGN says.
pub fn rounds(few: u32) -> u32 {
    match std::env::var("HELIX_CAMPAIGN") {
        Ok(text) => text.parse().expect("HELIX_CAMPAIGN is a number"),
        Err(_) => few,
    }
}

/// Chance with a printed seed; HELIX_SEED repeats it.
pub struct Chance(StdRng);

impl Chance {
    /// For a test of this name.
    pub fn new(test: &str) -> Self {
        let seed = match std::env::var("HELIX_SEED") {
            Ok(text) => text.parse().expect("HELIX_SEED is a number"),
            Err(_) => SystemTime::UNIX_EPOCH.elapsed().expect("the clock stands after 1970").subsec_nanos().into(),
        };
        eprintln!("{test}: HELIX_SEED={seed}");
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number from 0 up to and without `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A moment shorter than `most`.
    pub async fn moment(&mut self, most: Duration) {
        tokio::time::sleep(most.mul_f64(self.0.random())).await;
    }
}
