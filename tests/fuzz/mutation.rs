//! Inputs made from inputs.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes at which parsers decide something: ends of ranges, of texts and of numbers.
const TELLING: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xff, b'\n', b'/', b'\\', b'*', b'"'];
/// Longer inputs find nothing that shorter ones do not.
const LONGEST: usize = 16 * 1024;

/// A seeded source of mutations.
pub struct Mutator(StdRng);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// One of the inputs, changed in a few places, or grown together with another.
    pub fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input, corpus);
        }
        input.truncate(LONGEST);
        input
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end.max(1))
    }

    fn byte(&mut self) -> u8 {
        if self.0.random() { TELLING[self.below(TELLING.len())] } else { self.0.random() }
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.byte(),
            2 => input.insert(at, self.byte()),
            3 if at < input.len() => drop(input.drain(at..(at + 1 + self.below(8)).min(input.len()))),
            4 => input.truncate(at),
            5 => {
                let again = input[at..(at + self.below(32)).min(input.len())].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
