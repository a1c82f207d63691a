//! The models branch: one actor per provider, and the router.
//!
//! ```text
//! models            one-for-one
//! ├─ provider:NAME  permanent   concurrency, the one retry loop, circuit breaker, health
//! └─ router         permanent   finds the provider of a request; answers `ModelsMsg`
//! ```
//! Nothing here survives a restart, because nothing has to: a call whose actor ended is answered as uncertain, and
//! the journal of its task knows what that means.

mod breaker;
mod calls;
mod limits;
mod provider;
mod router;
mod supervisor;
#[cfg(test)]
mod tests;

pub use limits::Limits;
pub use supervisor::{ModelsArgs, ProviderArgs, branch};
