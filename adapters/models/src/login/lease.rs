//! The token in use: where it comes from, and how long it is good.

use std::time::{Duration, Instant};

use helix_ports::ProviderError;
use tokio::sync::{Mutex, MutexGuard};

use super::store::{Stamp, StoredToken};
use crate::{Access, ApiKey};

/// A token in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub key: ApiKey,
    /// Where the service is, where the token says so.
    pub base_url: Option<String>,
    pub good: Good,
    /// The file of the login that it was made of, or was saved in.
    pub stamp: Option<Stamp>,
    /// What could not be saved when it was given; the file has what it took the place of, which may be void.
    pub unsaved: Option<StoredToken>,
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

/// Where tokens come from.
pub(super) trait Source: Sync {
    /// The file that the login lies in now. What was made of another one is used no more.
    fn stamp(&self) -> Option<Stamp>;
    /// The token in that file, where it is one that calls are made with.
    fn kept(&self) -> Result<Option<Lease>, ProviderError>;
    /// Saves what could not be saved before.
    fn save_again(&self, lease: &mut Lease);
    /// Another one. What is `unsaved` counts, and not what the file has.
    fn fetch(&self, unsaved: Option<StoredToken>) -> impl Future<Output = Result<Lease, ProviderError>> + Send;
}

/// The token in use. All calls share it, and wait for one of them to fetch another: at many services a second fetching would make
/// the first one's token void.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Option<Lease>>);

impl Held {
    /// What to call with: the token in use while it is fresh, else another.
    pub async fn access(&self, source: &impl Source) -> Result<Access, ProviderError> {
        let mut held = self.present(source).await?;
        match held.as_ref().filter(|lease| lease.is_fresh(Instant::now(), wall())) {
            Some(lease) => Ok(lease.access()),
            None => another(&mut held, source).await,
        }
    }

    /// `refused` was not accepted: the token that is in use by now, or another where it is the same.
    pub async fn renew(&self, refused: &Access, source: &impl Source) -> Result<Access, ProviderError> {
        let mut held = self.present(source).await?;
        match held.as_ref().filter(|lease| Some(&lease.key) != refused.key.as_ref()) {
            Some(lease) => Ok(lease.access()),
            None => another(&mut held, source).await,
        }
    }

    /// The token in use, or the one of the login's file where there is none, or where somebody logged in anew.
    async fn present(&self, source: &impl Source) -> Result<MutexGuard<'_, Option<Lease>>, ProviderError> {
        let mut held = self.0.lock().await;
        match held.as_mut().filter(|lease| lease.stamp == source.stamp()) {
            Some(lease) if lease.unsaved.is_some() => source.save_again(lease),
            Some(_) => {}
            None => *held = source.kept()?,
        }
        Ok(held)
    }
}

async fn another(held: &mut Option<Lease>, source: &impl Source) -> Result<Access, ProviderError> {
    let unsaved = held.as_ref().and_then(|lease| lease.unsaved.clone());
    Ok(held.insert(source.fetch(unsaved).await?).access())
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
        Lease { key: ApiKey::new("k").expect("a key"), base_url: None, good, stamp: None, unsaved: None }
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
