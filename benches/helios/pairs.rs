//! Two ways of doing the same, in turns.

use anyhow::Result;

use crate::report::{Figure, quantile, readable};

/// Milliseconds of each pair: (helios, the other).
pub struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    /// Does both `count` times; who goes first alternates.
    pub fn take(
        count: usize,
        mut ours: impl FnMut(usize) -> Result<f64>,
        mut theirs: impl FnMut(usize) -> Result<f64>,
    ) -> Result<Self> {
        let mut pairs = Vec::with_capacity(count);
        for round in 0..count {
            pairs.push(if round % 2 == 0 {
                let first = ours(round)?;
                (first, theirs(round)?)
            } else {
                let first = theirs(round)?;
                (ours(round)?, first)
            });
        }
        Ok(Self(pairs))
    }

    /// The figure: helios's median; the ratio is the median over the pairs.
    pub fn figure(&self, name: &str, other: &str, least: Option<f64>) -> Figure {
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let ours = sorted(self.0.iter().map(|(ours, _)| *ours).collect());
        let theirs = sorted(self.0.iter().map(|(_, theirs)| *theirs).collect());
        let times = sorted(self.0.iter().map(|(ours, theirs)| theirs / ours).collect());
        let three = |values: &[f64]| {
            let [least, median, p95] = [0.0, 0.5, 0.95].map(|share| readable(quantile(values, share)));
            format!("{median} ms (least {least}, p95 {p95})")
        };
        let name = format!("{name}: median of {}", self.0.len());
        let against = format!("least {}, p95 {}; {other}: {}", readable(ours[0]), readable(quantile(&ours, 0.95)), three(&theirs));
        Figure::new(name, quantile(&ours, 0.5), "ms").against(against).times(quantile(&times, 0.5), least)
    }

    /// The greatest of helios's times.
    pub fn slowest(&self) -> f64 {
        self.0.iter().map(|(ours, _)| *ours).fold(0.0, f64::max)
    }
}
