//! How much is asked of one provider, and how patiently.

use std::time::Duration;

use helix_config::ProviderConfig;

/// Limits of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once.
    pub concurrency: usize,
    /// Calls that may wait besides; one more is refused as `overloaded`.
    pub waiting: usize,
    /// How often a call that was certainly not billed is repeated.
    pub retries: u32,
    /// The first repetition's backoff; it doubles.
    pub backoff_first: Duration,
    /// The longest backoff.
    pub backoff_most: Duration,
    /// A provider that wants us back later than this is given up for this call.
    pub patience: Duration,
    /// So many failures in a row open the circuit.
    pub failures: u32,
    /// For this long nothing is sent then; afterwards one call tries.
    pub cooldown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 16,
            waiting: 1_024,
            retries: 4,
            backoff_first: Duration::from_millis(500),
            backoff_most: Duration::from_secs(30),
            patience: Duration::from_secs(120),
            failures: 5,
            cooldown: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Backoff with jitter before the next try, and never earlier than the provider wants.
    pub(crate) fn wait(&self, tries: u32, retry_after: Option<Duration>) -> Duration {
        let doubled = self.backoff_first.saturating_mul(2u32.saturating_pow(tries.min(16)));
        let backoff = doubled.min(self.backoff_most);
        match retry_after {
            // A little later each, so that all who were told the same do not return at once.
            Some(after) => after.mul_f64(rand::random_range(1.0..=1.1)).max(after),
            None => backoff.mul_f64(rand::random_range(0.5..=1.0)),
        }
    }
}

impl From<&ProviderConfig> for Limits {
    fn from(config: &ProviderConfig) -> Self {
        Self { concurrency: config.concurrency.max(1) as usize, retries: config.max_retries, ..Self::default() }
    }
}
