//! Working folders: what they hold as a tree, and a tree put into them.

mod checkout;
pub(crate) mod folder;
mod policy;
mod reading;
mod scan;
mod stat_cache;

pub use checkout::{CheckedOut, checkout};
pub use policy::ScanPolicy;
#[cfg(feature = "git")]
pub(crate) use reading::{FileContent, read_steady};
pub use scan::{Scan, scan};
pub use stat_cache::StatCache;

#[cfg(test)]
mod tests;
