//! Snapshots of working folders, checkout, diff, branches, and git import and export.
