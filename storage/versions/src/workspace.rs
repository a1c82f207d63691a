//! Working folders: what they hold as a tree, and a tree put into them.

mod checkout;
mod folder;
mod policy;
mod scan;
mod stat_cache;

pub use checkout::{CheckedOut, checkout};
pub use policy::ScanPolicy;
pub use scan::{Scan, scan};
pub use stat_cache::StatCache;

#[cfg(test)]
mod tests;
