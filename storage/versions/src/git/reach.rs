//! What a git repository has for certain: what its refs reach. An object that merely lies there may lack what it names.

use gix::ObjectId as GitId;
use gix::hashtable::HashSet as IdSet;
use gix::objs::Kind;

use super::commit_text::{self, tag_target};
use super::failed;
use super::map::{GitRefs, GitTarget};
use super::source::{Reader, Source};
use crate::VersionError;

/// Which commits the target's refs reach; looked at only as far as somebody asks.
pub(super) struct Reach {
    /// What the refs name themselves.
    pub(super) named: IdSet<GitId>,
    tips: Vec<GitId>,
    known: IdSet<GitId>,
    walked: bool,
}

impl Reach {
    pub(super) fn new(target: &Source, there: &GitRefs) -> Self {
        let mut reader = target.reader();
        let objects = there.values().filter_map(|target| match target {
            GitTarget::Object(id) => Some(*id),
            GitTarget::Ref(_) => None,
        });
        let named: IdSet<GitId> = objects.collect();
        let tips: Vec<GitId> = named.iter().filter_map(|id| peel(&mut reader, *id)).collect();
        Self { named, known: tips.iter().copied().collect(), tips, walked: false }
    }

    /// Whether the refs reach the commit.
    pub(super) fn has(&mut self, target: &Source, commit: GitId) -> Result<bool, VersionError> {
        if self.known.contains(&commit) {
            return Ok(true);
        }
        if self.walked || self.tips.is_empty() || !target.reader().has(commit) {
            return Ok(false);
        }
        self.walked = true;
        let (mut reader, mut open) = (target.reader(), std::mem::take(&mut self.tips));
        while let Some(id) = open.pop() {
            let raw = reader.read(id, Kind::Commit)?;
            let text =
                commit_text::parse(&raw).map_err(|reason| failed(&target.place, format!("commit {id} is damaged: {reason}")))?;
            open.extend(text.parents.into_iter().filter(|parent| self.known.insert(*parent)));
        }
        Ok(self.known.contains(&commit))
    }
}

/// The commit an object leads to; `None` where it is none.
fn peel(reader: &mut Reader, mut id: GitId) -> Option<GitId> {
    loop {
        match reader.read_any(id).ok()? {
            (Kind::Commit, _) => return Some(id),
            (Kind::Tag, raw) => id = tag_target(&raw)?,
            _ => return None,
        }
    }
}
