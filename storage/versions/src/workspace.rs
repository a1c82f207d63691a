//! Working folders: what they hold as a tree, and a tree put into them.

#[cfg(feature = "git")]
mod apply;
mod checkout;
#[cfg(feature = "git")]
mod compare;
#[cfg(feature = "git")]
mod events;
pub(crate) mod folder;
#[cfg(feature = "git")]
mod fresh;
#[cfg(feature = "git")]
mod ignore;
#[cfg(feature = "git")]
mod index;
#[cfg(feature = "git")]
mod live;
#[cfg(feature = "git")]
mod merge;
#[cfg(feature = "git")]
mod notes;
#[cfg(feature = "git")]
mod outer;
#[cfg(feature = "git")]
mod plan;
mod policy;
mod reading;
#[cfg(feature = "git")]
mod rules;
mod scan;
mod stat_cache;
#[cfg(feature = "git")]
mod teamwork;
#[cfg(feature = "git")]
mod visit;
#[cfg(feature = "git")]
mod working_folder;
#[cfg(feature = "git")]
mod writing;

pub use checkout::{CheckedOut, checkout};
#[cfg(all(feature = "git", feature = "testing"))]
pub(crate) use ignore::fuzz as fuzz_ignore_rules;
pub use policy::ScanPolicy;
#[cfg(feature = "git")]
pub(crate) use reading::{FileContent, read_steady};
#[cfg(feature = "git")]
pub use rules::{Breadth, Events, FolderRules};
pub use scan::{Scan, scan};
pub use stat_cache::StatCache;
#[cfg(feature = "testing")]
pub(crate) use stat_cache::fuzz as fuzz_stat_cache;
#[cfg(feature = "git")]
pub use working_folder::{Conflict, ConflictKind, LiveEntry, LocalChanges, Refreshed, ScanReason, Status, Tracking, WorkingFolder};

#[cfg(all(test, feature = "git"))]
mod following_tests;
#[cfg(all(test, feature = "git"))]
mod ignoring_tests;
#[cfg(all(test, feature = "git"))]
mod letting_go_tests;
#[cfg(all(test, feature = "git"))]
mod moving_tests;
#[cfg(test)]
mod tests;
