//! Files that have another path now: a removal and an addition of the same content, or of nearly the same, are one change.
//!
//! The rules are git's (its `diffcore-rename`), so that the same pairs come out with the same similarity: the same content first,
//! then files that keep their name in another folder, then whatever is most similar.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use helix_protocol::{FileMode, ObjectId};

use crate::{EntryChange, TreeEntry, VersionError, is_binary};

/// Similarities are parts of this many, as in git.
const WHOLE: u64 = 60_000;
/// What is less similar is another file.
const LEAST: u64 = WHOLE / 2;
/// Where the name has stayed, what is less similar is compared with others first.
const LEAST_OF_A_NAME: u64 = LEAST + (WHOLE - LEAST) / 2;
/// Where there are more pairs than this to compare, only equal contents and equal names are paired.
const MOST_PAIRS: usize = 1_000_000;
/// So many of the most similar are kept for each path.
const CANDIDATES: usize = 4;
/// Content is compared in lines, and longer lines in pieces of this length.
const PIECE: usize = 64;

/// A path that differs, with where it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// The path in the newer tree, or the only one. Of a renamed file `before` is the entry under the old path.
    pub change: EntryChange,
    /// Where it was.
    pub from: Option<Origin>,
}

/// Where a renamed file was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The old path.
    pub path: Vec<u8>,
    /// How much of the content is the same, in per cent.
    pub similarity: u8,
}

impl From<EntryChange> for PathChange {
    fn from(change: EntryChange) -> Self {
        Self { change, from: None }
    }
}

/// Pairs removals with additions. `changes` are by path, and so is what is given; contents are read only where they have to be.
pub fn find_renames<E: Into<VersionError>>(
    changes: Vec<EntryChange>,
    read: impl Fn(ObjectId) -> Result<Bytes, E>,
) -> Result<Vec<PathChange>, VersionError> {
    let is_file = |entry: &Option<TreeEntry>| entry.as_ref().is_some_and(|entry| entry.mode != FileMode::Directory);
    let sides = |one: fn(&EntryChange) -> &Option<TreeEntry>, other: fn(&EntryChange) -> &Option<TreeEntry>| -> Vec<usize> {
        let wanted = |change: &EntryChange| is_file(one(change)) && other(change).is_none();
        let mut found: Vec<usize> = changes.iter().enumerate().filter(|(_, change)| wanted(change)).map(|(at, _)| at).collect();
        // Of two that fit alike the first one is taken, in git's order: by the bytes of the whole path.
        found.sort_by_key(|at| &changes[*at].path);
        found
    };
    let mut search = Search {
        sources: sides(|change| &change.before, |change| &change.after),
        targets: sides(|change| &change.after, |change| &change.before),
        changes: &changes,
        pairs: HashMap::new(),
        pieces: HashMap::new(),
    };
    if search.sources.is_empty() || search.targets.is_empty() {
        return Ok(changes.into_iter().map(PathChange::from).collect());
    }
    let read = |id| read(id).map_err(Into::into);
    search.pair_equal();
    search.pair_equal_names(&read)?;
    search.pair_similar(&read)?;
    let mut pairs = search.pairs;
    let sources: Vec<usize> = pairs.values().map(|(source, _)| *source).collect();
    let mut renamed = Vec::with_capacity(changes.len());
    for (at, change) in changes.iter().enumerate() {
        match pairs.remove(&at) {
            Some((source, score)) => {
                let old = &changes[source];
                let similarity = u8::try_from(score * 100 / WHOLE).unwrap_or(100);
                let change = EntryChange { before: old.before.clone(), ..change.clone() };
                renamed.push(PathChange { change, from: Some(Origin { path: old.path.clone(), similarity }) });
            }
            None if sources.contains(&at) => {}
            None => renamed.push(change.clone().into()),
        }
    }
    Ok(renamed)
}

type Content<'a> = dyn Fn(ObjectId) -> Result<Bytes, VersionError> + 'a;

/// How many bytes of each piece a content has, and how long it is.
struct Pieces {
    bytes: HashMap<Vec<u8>, u64>,
    length: u64,
}

struct Search<'a> {
    changes: &'a [EntryChange],
    /// Paths that went, and have no pair yet.
    sources: Vec<usize>,
    /// Paths that came, and have no pair yet.
    targets: Vec<usize>,
    /// By target: the source, and how similar it is.
    pairs: HashMap<usize, (usize, u64)>,
    pieces: HashMap<ObjectId, Pieces>,
}

impl Search<'_> {
    fn removed(&self, source: usize) -> &TreeEntry {
        self.changes[source].before.as_ref().expect("a source is a removal")
    }

    fn added(&self, target: usize) -> &TreeEntry {
        self.changes[target].after.as_ref().expect("a target is an addition")
    }

    fn name(&self, at: usize) -> &[u8] {
        let path = &self.changes[at].path;
        path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
    }

    fn pair(&mut self, source: usize, target: usize, score: u64) {
        self.pairs.insert(target, (source, score));
        self.sources.retain(|other| *other != source);
        self.targets.retain(|other| *other != target);
    }

    /// The same content, under the same name if it can be.
    fn pair_equal(&mut self) {
        for target in self.targets.clone() {
            let new = self.added(target);
            let regular = |mode| matches!(mode, FileMode::Regular | FileMode::Executable);
            let fits = |source: &&usize| {
                let old = self.removed(**source);
                old.id == new.id && (old.mode == new.mode || (regular(old.mode) && regular(new.mode)))
            };
            let equal: Vec<usize> = self.sources.iter().filter(fits).copied().collect();
            let named = equal.iter().find(|source| self.name(**source) == self.name(target));
            if let Some(source) = named.or(equal.first()).copied() {
                self.pair(source, target, WHOLE);
            }
        }
    }

    /// Files that went into another folder, where no other file of that name came or went.
    fn pair_equal_names(&mut self, read: &Content<'_>) -> Result<(), VersionError> {
        let only = |all: &[usize]| {
            let mut named: HashMap<Vec<u8>, Option<usize>> = HashMap::new();
            for at in all {
                named.entry(self.name(*at).to_vec()).and_modify(|only| *only = None).or_insert(Some(*at));
            }
            named
        };
        let (sources, targets) = (only(&self.sources), only(&self.targets));
        for source in self.sources.clone() {
            let name = self.name(source);
            if let (Some(Some(_)), Some(Some(target))) = (sources.get(name), targets.get(name)) {
                let score = self.score(source, *target, read)?;
                if score >= LEAST_OF_A_NAME {
                    self.pair(source, *target, score);
                }
            }
        }
        Ok(())
    }

    /// The most similar first. Among equals git takes whoever comes first in its list of candidates, in which a better one takes
    /// the place of the worst: sources that are too different to be chosen keep their places until then.
    fn pair_similar(&mut self, read: &Content<'_>) -> Result<(), VersionError> {
        if self.sources.len() * self.targets.len() > MOST_PAIRS {
            return Ok(());
        }
        let mut candidates = Vec::new();
        for target in self.targets.clone() {
            let mut best: Vec<(u64, bool, usize, usize)> = Vec::with_capacity(CANDIDATES);
            for source in self.sources.clone() {
                let score = self.score(source, target, read)?;
                let candidate = (score, self.name(source) == self.name(target), source, target);
                let rank = |(score, named, ..): &(u64, bool, usize, usize)| (*score, *named);
                let worst = (0..best.len()).min_by_key(|at| rank(&best[*at]));
                match worst.filter(|_| best.len() == CANDIDATES) {
                    None => best.push(candidate),
                    Some(worst) if rank(&best[worst]) < rank(&candidate) => best[worst] = candidate,
                    Some(_) => {}
                }
            }
            candidates.extend(best);
        }
        candidates.sort_by_key(|(score, named, ..)| std::cmp::Reverse((*score, *named)));
        for (score, _, source, target) in candidates {
            if score >= LEAST && self.sources.contains(&source) && self.targets.contains(&target) {
                self.pair(source, target, score);
            }
        }
        Ok(())
    }

    /// How much of the longer file both have, of [`WHOLE`].
    fn score(&mut self, source: usize, target: usize, read: &Content<'_>) -> Result<u64, VersionError> {
        let (old, new) = (self.removed(source).clone(), self.added(target).clone());
        if [old.mode, new.mode].contains(&FileMode::Symlink) || new.size == 0 {
            return Ok(0);
        }
        let (longer, shorter) = (old.size.max(new.size), old.size.min(new.size));
        if longer * (WHOLE - LEAST) < (longer - shorter) * WHOLE {
            return Ok(0);
        }
        for id in [old.id, new.id] {
            if let Entry::Vacant(place) = self.pieces.entry(id) {
                place.insert(pieces(&read(id)?));
            }
        }
        let (old, new) = (&self.pieces[&old.id], &self.pieces[&new.id]);
        let same: u64 = old.bytes.iter().map(|(piece, bytes)| *bytes.min(new.bytes.get(piece).unwrap_or(&0))).sum();
        Ok(same * WHOLE / old.length.max(new.length).max(1))
    }
}

fn pieces(content: &[u8]) -> Pieces {
    let text = !is_binary(content);
    let mut bytes: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut piece = Vec::with_capacity(PIECE);
    let mut end = |piece: &mut Vec<u8>| {
        let length = piece.len() as u64;
        if length > 0 {
            *bytes.entry(std::mem::take(piece)).or_default() += length;
        }
    };
    for (at, byte) in content.iter().enumerate() {
        // A line is the same whichever of the two ends it has.
        if text && *byte == b'\r' && content.get(at + 1) == Some(&b'\n') {
            continue;
        }
        piece.push(*byte);
        if piece.len() == PIECE || *byte == b'\n' {
            end(&mut piece);
        }
    }
    end(&mut piece);
    Pieces { bytes, length: content.len() as u64 }
}
