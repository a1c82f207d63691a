//! The models branch: one actor per provider, and the router.
//!
//! ```text
//! models            one-for-one
//! ├─ provider:NAME  permanent   concurrency, circuit breaker, health
//! └─ router         permanent   who answers a request, the one retry loop; answers `ModelsMsg`
//! ```
//! Who is asked, in which order and how often is pure code ([`directory`], [`choose`], [`tries`]); [`drive`] does as it says.
//! Nothing here survives a restart, because nothing has to: a call whose actor ended is answered as uncertain, and
//! the journal of its task knows what that means.

mod bounded;
mod breaker;
mod calls;
mod choose;
mod directory;
mod drive;
mod forward;
mod insist;
mod ledger;
mod limits;
mod pool;
mod provider;
mod reuse;
mod router;
mod supervisor;
#[cfg(test)]
mod tests;
mod tries;

pub use limits::Limits;
pub use supervisor::{ModelsArgs, ProviderArgs, branch};
