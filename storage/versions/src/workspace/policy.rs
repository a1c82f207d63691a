//! What of a working folder is carried.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use helix_objects::Pin;

use crate::VersionError;

/// What scans carry and checkouts leave alone. The folder `.git` at the root is never looked at by
/// either; everything else is carried, whether git ignores it or not.
#[derive(Clone, Debug)]
pub struct ScanPolicy {
    /// Larger files are listed instead of carried, in bytes.
    pub file_cap_bytes: u64,
    /// Under which new objects are pinned in the store while they are written.
    pub pin: Option<Pin>,
    caches: GlobSet,
}

impl ScanPolicy {
    /// Caches are globs: without a slash they fit a name anywhere (`node_modules`), with one a path
    /// from the root (`web/.next`). What fits is listed once and not entered by scans, and not
    /// deleted by checkouts.
    pub fn new(file_cap_bytes: u64, caches: &[String]) -> Result<Self, VersionError> {
        let refuse = |pattern: &str, error: globset::Error| VersionError::InvalidPattern {
            pattern: pattern.to_owned(),
            reason: error.kind().to_string(),
        };
        let mut set = GlobSetBuilder::new();
        for pattern in caches {
            let trimmed = pattern.trim_start_matches("./").trim_end_matches('/');
            let (anchored, anywhere) = (trimmed.trim_start_matches('/'), format!("**/{trimmed}"));
            let whole = if trimmed.contains('/') { anchored } else { &anywhere };
            set.add(GlobBuilder::new(whole).literal_separator(true).build().map_err(|error| refuse(pattern, error))?);
        }
        let caches = set.build().map_err(|error| refuse(&caches.join(" "), error))?;
        Ok(Self { file_cap_bytes, pin: None, caches })
    }

    /// Everything up to 64 MiB per file, no caches.
    pub fn everything() -> Self {
        Self { file_cap_bytes: 64 << 20, pin: None, caches: GlobSet::empty() }
    }

    /// Whether a path is a named cache.
    pub(crate) fn is_cache(&self, path: &[u8]) -> bool {
        !self.caches.is_empty() && self.caches.is_match(as_path(path))
    }

    /// Whether a path, seen from the root, is none of our business.
    pub(crate) fn is_outside(&self, path: &[u8]) -> bool {
        path == b".git"
    }
}

fn as_path(path: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::ScanPolicy;

    #[test]
    fn a_cache_without_a_slash_fits_anywhere_and_one_with_a_slash_only_there() {
        let policy = ScanPolicy::new(1, &["node_modules".into(), "web/.next/".into(), "*.egg-info".into()]).unwrap();
        for path in ["node_modules", "a/b/node_modules", "web/.next", "lib/x.egg-info"] {
            assert!(policy.is_cache(path.as_bytes()), "{path}");
        }
        for path in ["node_modules/x", "my_node_modules", "a/web/.next", ".next", "web"] {
            assert!(!policy.is_cache(path.as_bytes()), "{path}");
        }
        assert!(ScanPolicy::new(1, &["[".into()]).is_err());
    }
}
