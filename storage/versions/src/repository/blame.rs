//! Where each line of a file comes from.

use std::collections::BTreeMap;

use bytes::Bytes;
use helix_protocol::{FileMode, ObjectId, SnapshotId};

use crate::merge::changed_lines_of;
use crate::read::entry_at;
use crate::text::is_binary;
use crate::{VersionError, show_path};

use super::Repository;

/// A line with where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlameLine {
    /// The snapshot that brought it.
    pub snapshot: SnapshotId,
    /// Which line of the file it was there, counted from 1.
    pub number: usize,
    /// The line, with its end.
    pub text: Bytes,
}

/// A line that nobody owned up to yet: its place in the file asked for, and its place in the version looked at.
type Open = (usize, usize);

impl Repository {
    /// Where each line of a file comes from: the last snapshot, going back from `at`, that none of the parents has the line from.
    /// Lines are followed under one name only.
    pub fn blame(&self, at: SnapshotId, path: &[u8]) -> Result<Vec<BlameLine>, VersionError> {
        let tree = self.tree(at)?;
        let missing = || VersionError::NotFound { tree, path: show_path(path) };
        let file = self.file_at(at, path)?.ok_or_else(missing)?;
        let bytes = self.store().read(file)?;
        if is_binary(&bytes) {
            return Err(VersionError::Refused {
                message: format!("{} is a binary file", show_path(path)),
                hint: "only texts have lines; `helios log -- PATH` says which commits changed it",
            });
        }
        let lines = line_spans(&bytes);
        let mut origins: Vec<Option<(SnapshotId, usize)>> = vec![None; lines.len()];
        // The deepest first: whatever can hand lines to a version does so before it is looked at.
        let mut waiting: BTreeMap<(u64, SnapshotId), Vec<Open>> = BTreeMap::new();
        waiting.insert((self.depth(at)?, at), (0..lines.len()).map(|line| (line, line)).collect());
        while let Some(((_, id), mut open)) = waiting.pop_last() {
            let snapshot = self.snapshot(id)?;
            let here = self.file_at(id, path)?.ok_or_else(missing)?;
            for parent in &snapshot.parents {
                if open.is_empty() {
                    break;
                }
                let Some(there) = self.file_at(*parent, path)? else { continue };
                let inherited = if there == here { std::mem::take(&mut open) } else { self.hand_over((there, here), &mut open)? };
                if !inherited.is_empty() {
                    waiting.entry((self.depth(*parent)?, *parent)).or_default().extend(inherited);
                }
            }
            for (line, place) in open {
                origins[line] = Some((id, place + 1));
            }
        }
        let told = lines.into_iter().zip(origins).map(|(span, origin)| {
            let (snapshot, number) = origin.expect("every line ends with the snapshot that has no parent with it");
            BlameLine { snapshot, number, text: bytes.slice(span) }
        });
        Ok(told.collect())
    }

    /// Takes the lines that an older version has already out of `open`, with their places there.
    fn hand_over(&self, (old, new): (ObjectId, ObjectId), open: &mut Vec<Open>) -> Result<Vec<Open>, VersionError> {
        let (old, new) = (self.store().read(old)?, self.store().read(new)?);
        let hunks = changed_lines_of(&old, &new);
        // For each unchanged line of the newer version, its place in the older one.
        let (mut places, mut at): (Vec<Option<usize>>, usize) = (Vec::new(), 0);
        for hunk in &hunks {
            places.extend((at..hunk.old).map(Some));
            places.extend((0..hunk.new_count).map(|_| None));
            at = hunk.old + hunk.old_count;
        }
        places.extend((at..line_spans(&old).len()).map(Some));
        let mut inherited = Vec::new();
        open.retain(|(line, place)| match places[*place] {
            Some(older) => {
                inherited.push((*line, older));
                false
            }
            None => true,
        });
        Ok(inherited)
    }

    fn file_at(&self, id: SnapshotId, path: &[u8]) -> Result<Option<ObjectId>, VersionError> {
        let entry = entry_at(&**self.store(), self.tree(id)?, path)?;
        Ok(entry.filter(|entry| entry.mode != FileMode::Directory).map(|entry| entry.id))
    }
}

/// Where each line of a text is, its end included.
fn line_spans(text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    text.split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            start += line.len();
            start - line.len()..start
        })
        .collect()
}
