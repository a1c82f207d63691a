//! Snapshots of working folders, checkout, diff, branches, and git import and export.
//!
//! Everything here is synchronous and works on an [`ObjectStore`](helix_objects::ObjectStore);
//! callers on an async runtime use a blocking thread.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod branch_name;
mod codec;
mod diff;
mod error;
#[cfg(feature = "testing")]
pub mod fuzzing;
#[cfg(feature = "git")]
pub mod git;
mod merge;
mod names;
mod reach;
mod read;
mod renames;
mod repository;
mod snapshot;
mod text;
mod tree;
#[cfg(test)]
mod unprivileged;
mod workspace;

pub use branch_name::BranchName;
pub use diff::{EntryChange, diff, diff_entries, in_the_way, objects_between};
pub use error::VersionError;
pub use merge::{Merged, merge};
pub use names::leads_into_a_repository;
pub use reach::{Reached, reach};
pub use read::{PathEntry, entry_at, missing_closure, read_file, walk};
pub use renames::{Origin, PathChange, find_renames};
pub use repository::{
    Alive, Amount, Annotation, Batch, BisectStep, BlameLine, Caller, Closed, CollectOptions, Collected, CommitRequest, Committed,
    CreateOptions, Elsewhere, Existing, Experiment, ExperimentName, ExperimentState, Expired, FastForward, Fault, FileEdit,
    FilesRequest, Goal, Graph, GraphRow, Head, HeadTarget, History, Kept, LIVE_LIMIT, LiveUse, LogEntry, LogQuery, MergeKind,
    MergeOutcome, MergeRequest, Merges, Merging, MergingKind, MovedHead, Operation, OperationCause, OperationChange, Order,
    PickRequest, PurgePlan, PurgeTarget, Range, Recorded, RefExpect, RefName, Repository, ResetKind, Resolved, Retention, Root,
    RootKind, Score, ScoreVariant, Staged, Start, StartExperiment, Switched, Tag, Undecided, Undo, Undone, Unmerged, Unresolved,
    Variant, VariantName, Workspace, WorkspaceName,
};
pub use snapshot::{Log, Signature, Snapshot, empty_snapshot, empty_tree, log, write_snapshot};
pub use text::{Quote, diff_text, is_binary, quote_path};
pub use tree::{Tree, TreeEntry};
#[cfg(feature = "git")]
pub use workspace::{
    Breadth, Conflict, ConflictKind, Events, FolderRules, LiveEntry, LocalChanges, Refreshed, ScanReason, Status, Tracking,
    WorkingFolder,
};
pub use workspace::{CheckedOut, Scan, ScanPolicy, StatCache, checkout, scan};

/// A path as people see it: bytes that are not UTF-8 become U+FFFD.
pub(crate) fn show_path(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
