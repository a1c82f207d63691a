//! How long a token is good.

use std::time::{Duration, Instant};

use helix_ports::ProviderError;
use tokio::sync::Mutex;

use crate::{Access, ApiKey};

/// A token in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub key: ApiKey,
    /// Where the service is, where the token says so.
    pub base_url: Option<String>,
    pub good: Good,
}

/// Until when it is used without asking for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Good {
    /// Given to this process: its age is counted by a clock that nobody sets.
    For { given: Instant, time: Duration },
    /// Read from a file: only the wall clock knows its age. In seconds since 1970.
    Until(i64),
    /// Nobody said.
    UntilRefused,
}

impl Lease {
    fn access(&self) -> Access {
        Access { key: Some(self.key.clone()), base_url: self.base_url.clone() }
    }

    /// True while the token need not be replaced. `wall` is in seconds since 1970.
    pub fn is_fresh(&self, now: Instant, wall: i64) -> bool {
        match self.good {
            Good::For { given, time } => now.saturating_duration_since(given) < time.saturating_sub(margin(time)),
            Good::Until(expiry) => wall < expiry.saturating_sub(60),
            Good::UntilRefused => true,
        }
    }
}

/// The token in use. All calls share it, and wait for one of them to fetch another: at many services a second fetching would make
/// the first one's token void.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Option<Lease>>);

impl Held {
    /// What to call with: the token in use, or what `first` says where there is none, while it is fresh; else what `fetch` brings.
    pub async fn access(
        &self,
        first: impl FnOnce() -> Result<Option<Lease>, ProviderError>,
        fetch: impl Future<Output = Result<Lease, ProviderError>>,
    ) -> Result<Access, ProviderError> {
        let mut held = self.0.lock().await;
        if held.is_none() {
            *held = first()?;
        }
        match held.as_ref().filter(|lease| lease.is_fresh(Instant::now(), wall())) {
            Some(lease) => Ok(lease.access()),
            None => Ok(held.insert(fetch.await?).access()),
        }
    }

    /// `refused` was not accepted: the token that is in use by now, or what `fetch` brings where it is the same.
    pub async fn renew(
        &self,
        refused: &Access,
        fetch: impl Future<Output = Result<Lease, ProviderError>>,
    ) -> Result<Access, ProviderError> {
        let mut held = self.0.lock().await;
        match held.as_ref().filter(|lease| Some(&lease.key) != refused.key.as_ref()) {
            Some(lease) => Ok(lease.access()),
            None => Ok(held.insert(fetch.await?).access()),
        }
    }
}

/// A token is replaced so long before it expires: a call that began with it must come through.
fn margin(time: Duration) -> Duration {
    Duration::from_secs(60).min(time / 5)
}

/// The wall clock, in seconds since 1970.
pub(super) fn wall() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(good: Good) -> Lease {
        Lease { key: ApiKey::new("k").expect("a key"), base_url: None, good }
    }

    #[test]
    fn a_token_is_replaced_before_it_expires_whatever_the_wall_clock_says() {
        let given = Instant::now();
        let hour = lease(Good::For { given, time: Duration::from_secs(3_600) });
        for wall in [0, i64::MAX] {
            assert!(hour.is_fresh(given + Duration::from_secs(3_539), wall));
            assert!(!hour.is_fresh(given + Duration::from_secs(3_540), wall));
        }
        let short = lease(Good::For { given, time: Duration::from_secs(10) });
        assert!(short.is_fresh(given + Duration::from_secs(7), 0) && !short.is_fresh(given + Duration::from_secs(8), 0));
    }

    #[test]
    fn a_token_from_a_file_goes_by_the_wall_clock() {
        let read = lease(Good::Until(1_000));
        assert!(read.is_fresh(Instant::now(), 939) && !read.is_fresh(Instant::now(), 940));
        assert!(lease(Good::UntilRefused).is_fresh(Instant::now(), i64::MAX));
    }
}
