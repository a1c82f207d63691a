//! What people call snapshots: `main`, `HEAD~2`, `v1^{}`, `@{1}`, `3f2a9c01`, `main:src/lib.rs`, `main..topic`.
//!
//! As in git, but for what has no meaning here: a full name (`refs/heads/main`) comes before a tag, a tag before a branch, and
//! a name before the digits of an id, a snapshot's before those of a git commit that was imported or exported. `@{n}` goes
//! through the operation log.

use helix_objects::Family;
use helix_protocol::{FileMode, ObjectId, SnapshotId};

use crate::read::entry_at;
use crate::tree::{Tree, TreeEntry};
use crate::{VersionError, show_path};

use super::Repository;
use super::names::{RefName, WorkspaceName, distance, nearest};
use super::records::HeadTarget;

/// Digits that are shown of an id.
const SHOWN_DIGITS: usize = 12;
/// Digits that are needed of an id.
const NEEDED_DIGITS: usize = 4;
/// Digits from which on a mistyped id is looked for, and how many of them may be wrong.
const MISTYPED_DIGITS: usize = 7;
const WRONG_DIGITS: usize = 2;
/// Candidates that are named of a short id.
const NAMED_CANDIDATES: usize = 8;

/// What a revision stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A file or a folder of one: `main:path`, `main:` and `main^{tree}` are the root folder, which has no name.
    Entry(TreeEntry),
}

/// Snapshots between: in the history of any of `include`, in the history of none of `exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// From here back.
    pub include: Vec<SnapshotId>,
    /// But nothing from here back.
    pub exclude: Vec<SnapshotId>,
}

impl Repository {
    /// The snapshot that a revision stands for, as the workspace sees it.
    pub fn resolve(&self, workspace: &WorkspaceName, revision: &str) -> Result<SnapshotId, VersionError> {
        match self.resolve_object(workspace, revision)? {
            Resolved::Snapshot(id) => Ok(id),
            Resolved::Entry(_) => Err(invalid(revision, "it is a file or a folder, and a snapshot is needed")),
        }
    }

    /// The tree that a revision stands for: a snapshot's, or a folder's.
    pub fn resolve_tree(&self, workspace: &WorkspaceName, revision: &str) -> Result<ObjectId, VersionError> {
        match self.resolve_object(workspace, revision)? {
            Resolved::Snapshot(id) => self.tree(id),
            Resolved::Entry(entry) if entry.mode == FileMode::Directory => Ok(entry.id),
            Resolved::Entry(_) => Err(invalid(revision, "it is a file, and a folder is needed")),
        }
    }

    /// Whatever a revision stands for.
    pub fn resolve_object(&self, workspace: &WorkspaceName, revision: &str) -> Result<Resolved, VersionError> {
        let (name, path) = match split_path(revision) {
            Some((name, path)) => (name, Some(path)),
            None => (revision, None),
        };
        let tree = match (name, path) {
            // What the next commit is to have.
            ("", Some(_)) => {
                let workspace = self.workspace(workspace)?;
                workspace.staged.map_or_else(|| self.tree_of(&workspace.head), |staged| Ok(staged.tree))?
            }
            (name, _) => match (self.resolve_name(workspace, revision, name)?, path) {
                (found, None) => return Ok(found),
                (Resolved::Snapshot(id), Some(_)) => self.tree(id)?,
                (Resolved::Entry(entry), Some(_)) if entry.mode == FileMode::Directory => entry.id,
                (Resolved::Entry(_), Some(_)) => return Err(invalid(revision, "a file holds no paths")),
            },
        };
        let path = path.unwrap_or_default().trim_end_matches('/').as_bytes();
        if path.is_empty() {
            return self.root_entry(tree).map(Resolved::Entry);
        }
        match entry_at(&**self.store(), tree, path)? {
            Some(entry) => Ok(Resolved::Entry(entry)),
            None => Err(VersionError::NotFound { tree, path: show_path(path) }),
        }
    }

    /// The snapshots that revisions name together: `a`, `^a`, `a..b`, `a...b`. Without any, the head's.
    pub fn resolve_range(&self, workspace: &WorkspaceName, revisions: &[&str]) -> Result<Range, VersionError> {
        let mut range = Range::default();
        let side = |text: &str| self.resolve(workspace, if text.is_empty() { "HEAD" } else { text });
        for revision in revisions {
            if let Some((one, other)) = revision.split_once("...") {
                let (one, other) = (side(one)?, side(other)?);
                range.exclude.extend(self.merge_bases(one, other)?);
                range.include.extend([one, other]);
            } else if let Some((older, newer)) = revision.split_once("..") {
                range.exclude.push(side(older)?);
                range.include.push(side(newer)?);
            } else if let Some(excluded) = revision.strip_prefix('^') {
                range.exclude.push(side(excluded)?);
            } else {
                range.include.push(side(revision)?);
            }
        }
        if range.include.is_empty() {
            range.include.push(self.resolve(workspace, "HEAD")?);
        }
        Ok(range)
    }

    /// The fewest digits of an id that fit no other snapshot, `least` and four at least.
    pub fn short_id(&self, id: SnapshotId, least: usize) -> Result<String, VersionError> {
        let text = id.to_string();
        let mut digits = least.clamp(NEEDED_DIGITS, text.len());
        while digits < text.len() && self.candidates(&text[..digits])?.len() > 1 {
            digits += 1;
        }
        Ok(text[..digits].to_owned())
    }

    /// A name with what follows it: `main~2^{tree}`.
    fn resolve_name(&self, workspace: &WorkspaceName, whole: &str, text: &str) -> Result<Resolved, VersionError> {
        let end = text.find(['^', '~']).into_iter().chain(text.find("@{")).min().unwrap_or(text.len());
        let (base, mut rest) = text.split_at(end);
        let mut id = match rest.strip_prefix("@{") {
            Some(inner) => {
                let (count, after) = inner.split_once('}').ok_or_else(|| invalid(whole, "a brace is not closed"))?;
                rest = after;
                self.past(workspace, whole, base, count)?
            }
            None => self.resolve_base(workspace, whole, base)?,
        };
        while let Some(sign) = rest.chars().next() {
            let after = &rest[sign.len_utf8()..];
            if sign == '^'
                && let Some(inner) = after.strip_prefix('{')
            {
                let (kind, after) = inner.split_once('}').ok_or_else(|| invalid(whole, "a brace is not closed"))?;
                match kind {
                    "" | "commit" | "snapshot" => rest = after,
                    "tree" if after.is_empty() => return self.root_entry(self.tree(id)?).map(Resolved::Entry),
                    _ => return Err(invalid(whole, "only ^{}, ^{commit} and, at the end, ^{tree} are known")),
                }
                continue;
            }
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let count = match &after[..digits] {
                "" => 1,
                digits => digits.parse::<usize>().map_err(|_| invalid(whole, "a number is too large"))?,
            };
            rest = &after[digits..];
            id = match sign {
                '^' => self.nth_parent(whole, id, count)?,
                '~' => self.back(whole, id, count)?,
                _ => return Err(invalid(whole, "only ^, ~ and @{} can follow a name")),
            };
        }
        Ok(Resolved::Snapshot(id))
    }

    fn nth_parent(&self, whole: &str, id: SnapshotId, count: usize) -> Result<SnapshotId, VersionError> {
        match count.checked_sub(1) {
            None => Ok(id),
            Some(place) => self.snapshot(id)?.parents.get(place).copied().ok_or_else(|| unknown(whole, None)),
        }
    }

    fn back(&self, whole: &str, id: SnapshotId, count: usize) -> Result<SnapshotId, VersionError> {
        (0..count).try_fold(id, |id, _| self.nth_parent(whole, id, 1))
    }

    fn resolve_base(&self, workspace: &WorkspaceName, whole: &str, base: &str) -> Result<SnapshotId, VersionError> {
        match base {
            "" => return Err(invalid(whole, "it names nothing")),
            "HEAD" | "@" => {
                return self.head(workspace)?.snapshot.ok_or(VersionError::Unborn);
            }
            "MERGE_HEAD" => {
                if let Some(merging) = self.workspace(workspace)?.merging {
                    return Ok(merging.other);
                }
            }
            _ => {}
        }
        if let Some((_, target)) = self.named(base)? {
            return Ok(target);
        }
        let digits = base.len() >= NEEDED_DIGITS && base.len() <= 64 && base.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digits && let Some(id) = self.by_digits(whole, &base.to_ascii_lowercase())? {
            return Ok(id);
        }
        #[cfg(feature = "git")]
        if digits && let Some(id) = self.by_git_id(whole, &base.to_ascii_lowercase())? {
            return Ok(id);
        }
        if let Some(id) = self.nearest_id(base)? {
            return Err(unknown(whole, Some(id)));
        }
        let refs = self.refs("refs/")?;
        Err(unknown(whole, nearest(base, refs.iter().map(|(name, _)| name.short()).chain(["HEAD"]))))
    }

    /// The id of a snapshot that digits were meant to begin, as it is shown, where all but two of them are right.
    fn nearest_id(&self, typed: &str) -> Result<Option<String>, VersionError> {
        let is_wrong = |byte: &u8| !byte.is_ascii_hexdigit();
        if !(MISTYPED_DIGITS..=64).contains(&typed.len()) || typed.bytes().filter(is_wrong).count() > WRONG_DIGITS {
            return Ok(None);
        }
        let (typed, mut best) = (typed.to_ascii_lowercase(), None);
        self.each_record(Family::Snapshots, &[], |key, _| {
            if let Ok(id) = <[u8; 32]>::try_from(key.as_ref()) {
                let id = ObjectId(id).to_string();
                let wrong = distance(&typed, &id[..typed.len()], WRONG_DIGITS);
                if wrong <= WRONG_DIGITS && best.as_ref().is_none_or(|(least, _)| wrong < *least) {
                    best = Some((wrong, id));
                }
            }
            Ok(())
        })?;
        Ok(best.map(|(_, id)| id[..typed.len().max(SHOWN_DIGITS)].to_owned()))
    }

    /// The ref that a name means.
    fn named(&self, name: &str) -> Result<Option<(RefName, SnapshotId)>, VersionError> {
        let names = [
            name.to_owned(),
            format!("refs/{name}"),
            format!("refs/tags/{name}"),
            format!("refs/heads/{name}"),
            format!("refs/remotes/{name}"),
        ];
        for name in names.iter().filter_map(|name| name.parse::<RefName>().ok()) {
            if let Some(target) = self.ref_target(&name)? {
                return Ok(Some((name, target)));
            }
        }
        Ok(None)
    }

    fn by_digits(&self, whole: &str, digits: &str) -> Result<Option<SnapshotId>, VersionError> {
        if let Ok(id) = digits.parse::<ObjectId>() {
            let id = SnapshotId(id);
            return Ok(if self.has_snapshot(id)? { Some(id) } else { None });
        }
        let candidates = self.candidates(digits)?;
        match candidates.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            several => Err(VersionError::Ambiguous {
                revision: whole.to_owned(),
                candidates: several
                    .iter()
                    .take(NAMED_CANDIDATES)
                    .map(|id| id.to_string()[..digits.len().clamp(16, 64)].to_owned())
                    .collect(),
            }),
        }
    }

    /// The snapshot that git has under an id that begins so.
    #[cfg(feature = "git")]
    fn by_git_id(&self, whole: &str, digits: &str) -> Result<Option<SnapshotId>, VersionError> {
        if digits.len() > 40 {
            return Ok(None);
        }
        let map = crate::git::GitMap::load(&**self.store())?;
        let mut found = Vec::new();
        for id in map.snapshots_like(digits) {
            // What was exported may have been collected since.
            if self.has_snapshot(id)? {
                found.push(id);
            }
        }
        match found.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            several => {
                let commits = several.iter().take(NAMED_CANDIDATES).filter_map(|id| map.commit_of(*id));
                Err(VersionError::Ambiguous { revision: whole.to_owned(), candidates: commits.collect() })
            }
        }
    }

    /// Some of the snapshots whose ids begin with these digits: all of them, or at least two.
    fn candidates(&self, digits: &str) -> Result<Vec<SnapshotId>, VersionError> {
        let prefix: Vec<u8> = (0..digits.len() / 2)
            .map(|place| u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).expect("they are hexadecimal digits"))
            .collect();
        let mut found = Vec::new();
        self.each_record(Family::Snapshots, &prefix, |key, _| {
            let id = <[u8; 32]>::try_from(key.as_ref()).map(|id| SnapshotId(ObjectId(id)));
            found.extend(id.ok().filter(|id| id.to_string().starts_with(digits)));
            Ok(())
        })?;
        Ok(found)
    }

    /// `NAME@{n}`, `@{n}`, `@{-n}`.
    fn past(&self, workspace: &WorkspaceName, whole: &str, base: &str, count: &str) -> Result<SnapshotId, VersionError> {
        if let Some(back) = count.strip_prefix('-') {
            let back = back.parse().ok().filter(|back| *back > 0 && base.is_empty());
            let before = back.map(|back| self.head_before(workspace, back)).transpose()?.flatten();
            return match before.ok_or_else(|| invalid(whole, "the head was nowhere before"))? {
                HeadTarget::Branch(branch) => self.branch(&branch)?.ok_or_else(|| self.no_branch(&branch)),
                HeadTarget::Detached(id) => Ok(id),
            };
        }
        let count: usize = count.parse().map_err(|_| invalid(whole, "between the braces must be a number"))?;
        let (now, past) = match base {
            "HEAD" | "@" => (self.head(workspace)?.snapshot, self.head_history(workspace, count)?),
            "" => {
                let head = self.head(workspace)?;
                let past = match &head.target {
                    HeadTarget::Branch(branch) => self.ref_history(RefName::branch(branch).as_str(), count)?,
                    HeadTarget::Detached(_) => self.head_history(workspace, count)?,
                };
                (head.snapshot, past)
            }
            name => {
                let Some((name, target)) = self.named(name)? else { return self.resolve_base(workspace, whole, base) };
                (Some(target), self.ref_history(name.as_str(), count)?)
            }
        };
        let found = std::iter::once(now).chain(past).nth(count);
        found.flatten().ok_or_else(|| invalid(whole, "the operation log does not go back that far"))
    }

    /// Where the head was before it was switched for the n-th last time: on a branch, or at a snapshot. Commits on
    /// the way are no switches.
    pub fn head_before(&self, workspace: &WorkspaceName, count: usize) -> Result<Option<HeadTarget>, VersionError> {
        let mut past = Vec::new();
        let mut now = self.head(workspace)?.target;
        self.each_head(workspace, |before, verb| {
            if verb == "switch" && before != now {
                past.push(before.clone());
            }
            now = before;
            Ok(past.len() < count)
        })?;
        Ok(count.checked_sub(1).and_then(|place| past.into_iter().nth(place)))
    }

    fn root_entry(&self, tree: ObjectId) -> Result<TreeEntry, VersionError> {
        let size = Tree::load(&**self.store(), tree)?.size();
        Ok(TreeEntry { name: Vec::new(), mode: FileMode::Directory, size, id: tree })
    }
}

/// A revision's name and the path behind its colon.
fn split_path(revision: &str) -> Option<(&str, &str)> {
    let place = revision.find(':')?;
    Some((&revision[..place], &revision[place + 1..]))
}

fn invalid(revision: &str, reason: &'static str) -> VersionError {
    VersionError::InvalidRevision { revision: revision.to_owned(), reason }
}

fn unknown(revision: &str, nearest: Option<String>) -> VersionError {
    VersionError::Unknown { kind: "revision", name: revision.to_owned(), nearest }
}
