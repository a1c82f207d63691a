//! The history: which snapshots, in which order, seen how.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use helix_protocol::{FileMode, ObjectId, SnapshotId, Timestamp};

use crate::read::entry_at;
use crate::{Snapshot, VersionError};

use super::Repository;

/// In which order snapshots come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest first by the committers' clocks, none before it was met as a parent. Of several of one instant none comes before
    /// what was made from it, and else the one that was met first, as in git.
    #[default]
    Date,
    /// As `Date`, and none before all that were made from it.
    Topological,
    /// As `Topological`, turned around once it was limited: the last ones of the history, as in git.
    Reverse,
}

/// Which snapshots with several parents are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merges {
    /// All, and the others.
    #[default]
    All,
    /// Only them.
    Only,
    /// None of them.
    Without,
}

/// What of the history is asked for. What several fields say holds together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// From here back; see [`Repository::resolve_range`].
    pub include: Vec<SnapshotId>,
    /// But nothing from here back.
    pub exclude: Vec<SnapshotId>,
    /// The order.
    pub order: Order,
    /// Only the first parent of each is followed.
    pub first_parent: bool,
    /// With or without merges.
    pub merges: Merges,
    /// Only where one of these paths, a file or all beneath a folder, became another one.
    pub paths: Vec<Vec<u8>>,
    /// Only where the author's name or address has this in it, in whatever case.
    pub author: Option<String>,
    /// Only where the message has this in it, in whatever case.
    pub grep: Option<String>,
    /// Only with this metadata: a key, and its value where one is given.
    pub metadata: Vec<(String, Option<String>)>,
    /// Only committed then or later.
    pub since: Option<Timestamp>,
    /// Only committed then or before.
    pub until: Option<Timestamp>,
    /// So many are left out at the beginning.
    pub skip: usize,
    /// At most so many.
    pub limit: Option<usize>,
}

/// A snapshot of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its id.
    pub id: SnapshotId,
    /// What it is.
    pub snapshot: Arc<Snapshot>,
    /// The parents that the history was followed to. In topological order these are the nearest ancestors that are told too, so
    /// that lines can be drawn between them; by date, where it is asked for by paths, a merge has only the one that has them alike.
    pub parents: Vec<SnapshotId>,
}

impl Repository {
    /// The history that is asked for, read as it is needed.
    pub fn log(&self, query: &LogQuery) -> Result<History<'_>, VersionError> {
        let excluded = self.excluded(&query.include, &query.exclude)?;
        let mut history = History {
            repository: self,
            query: query.clone(),
            excluded,
            seen: HashSet::new(),
            queue: BinaryHeap::new(),
            ordered: None,
            prints: HashMap::new(),
            skip: query.skip,
            left: query.limit.unwrap_or(usize::MAX),
            failed: false,
        };
        for id in &query.include {
            history.enqueue(*id)?;
        }
        if query.order != Order::Date {
            history.sort()?;
        }
        Ok(history)
    }

    /// How many snapshots a range has.
    pub fn count(&self, include: &[SnapshotId], exclude: &[SnapshotId]) -> Result<usize, VersionError> {
        let query = LogQuery { include: include.to_vec(), exclude: exclude.to_vec(), ..LogQuery::default() };
        self.log(&query)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
    }
}

/// See [`Repository::log`]. After an error there is nothing more.
pub struct History<'a> {
    repository: &'a Repository,
    query: LogQuery,
    /// Snapshots of the excluded side, as far as the included side could meet them.
    excluded: HashSet<SnapshotId>,
    seen: HashSet<SnapshotId>,
    queue: BinaryHeap<Waiting>,
    ordered: Option<VecDeque<LogEntry>>,
    prints: HashMap<ObjectId, Fingerprint>,
    skip: usize,
    left: usize,
    failed: bool,
}

/// A snapshot in the queue: its time, its depth, the place at which it was met, and its id. The greatest comes first.
type Waiting = (Timestamp, u64, Reverse<usize>, SnapshotId);

/// What the paths asked for are in a tree.
type Fingerprint = Arc<Vec<Option<(FileMode, ObjectId)>>>;

impl Iterator for History<'_> {
    type Item = Result<LogEntry, VersionError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 && !self.failed {
            let next = match &mut self.ordered {
                Some(ordered) => ordered.pop_front().map(|entry| Ok((entry, true))),
                None => self.follow().transpose(),
            };
            match next? {
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
                Ok((entry, wanted)) => {
                    if !wanted {
                        continue;
                    }
                    if self.skip > 0 {
                        self.skip -= 1;
                        continue;
                    }
                    self.left -= 1;
                    return Some(Ok(entry));
                }
            }
        }
        None
    }
}

impl History<'_> {
    fn enqueue(&mut self, id: SnapshotId) -> Result<(), VersionError> {
        if !self.excluded.contains(&id) && self.seen.insert(id) {
            let waiting = self.waiting(id, self.seen.len())?;
            self.queue.push(waiting);
        }
        Ok(())
    }

    fn waiting(&self, id: SnapshotId, met: usize) -> Result<Waiting, VersionError> {
        Ok((self.repository.snapshot(id)?.committer.time, self.repository.depth(id)?, Reverse(met), id))
    }

    /// The next snapshot by date, and whether it is one that was asked for.
    fn follow(&mut self) -> Result<Option<(LogEntry, bool)>, VersionError> {
        let Some((.., id)) = self.queue.pop() else { return Ok(None) };
        let snapshot = self.repository.snapshot(id)?;
        let first = usize::from(self.query.first_parent);
        let followed = if first == 1 { snapshot.parents.iter().take(1) } else { snapshot.parents.iter().take(usize::MAX) };
        let mut parents: Vec<SnapshotId> = followed.copied().collect();
        let touches = self.touches(&snapshot, &mut parents)?;
        for parent in &parents {
            self.enqueue(*parent)?;
        }
        let wanted = touches && self.fits(&snapshot);
        Ok(Some((LogEntry { id, snapshot, parents }, wanted)))
    }

    /// Whether one of the paths is another one than in every parent. A parent that has them all alike is the only one followed:
    /// how they came to be is told there.
    fn touches(&mut self, snapshot: &Snapshot, parents: &mut Vec<SnapshotId>) -> Result<bool, VersionError> {
        if self.query.paths.is_empty() {
            return Ok(true);
        }
        let mine = self.print(snapshot.tree)?;
        for parent in parents.iter() {
            let tree = self.repository.tree(*parent)?;
            if self.print(tree)? == mine {
                *parents = vec![*parent];
                return Ok(false);
            }
        }
        Ok(!snapshot.parents.is_empty() || mine.iter().any(Option::is_some))
    }

    fn print(&mut self, tree: ObjectId) -> Result<Fingerprint, VersionError> {
        if let Some(print) = self.prints.get(&tree) {
            return Ok(print.clone());
        }
        let store = &**self.repository.store();
        let at = |path: &Vec<u8>| match path.as_slice() {
            b"" => Ok(Some((FileMode::Directory, tree))),
            path => entry_at(store, tree, path).map(|entry| entry.map(|entry| (entry.mode, entry.id))),
        };
        let print: Fingerprint = Arc::new(self.query.paths.iter().map(at).collect::<Result<_, _>>()?);
        self.prints.insert(tree, print.clone());
        Ok(print)
    }

    fn fits(&self, snapshot: &Snapshot) -> bool {
        let LogQuery { merges, author, grep, metadata, since, until, .. } = &self.query;
        let has =
            |text: &str, part: &Option<String>| part.as_ref().is_none_or(|part| text.to_lowercase().contains(&part.to_lowercase()));
        let time = snapshot.committer.time;
        let several = snapshot.parents.len() > 1;
        (*merges == Merges::All || (*merges == Merges::Only) == several)
            && since.is_none_or(|since| time >= since)
            && until.is_none_or(|until| time <= until)
            && has(&snapshot.message, grep)
            && (author.is_none() || has(&format!("{} <{}>", snapshot.author.name, snapshot.author.email), author))
            && metadata.iter().all(|(key, value)| match (snapshot.metadata.get(key), value) {
                (Some(found), Some(value)) => found == value,
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            })
    }

    /// Reads everything and puts each snapshot behind all that were made from it.
    fn sort(&mut self) -> Result<(), VersionError> {
        let (mut entries, mut children) = (HashMap::new(), HashMap::<SnapshotId, usize>::new());
        while let Some((entry, wanted)) = self.follow()? {
            for parent in &entry.parents {
                *children.entry(*parent).or_default() += 1;
            }
            entries.insert(entry.id, (entry, wanted, entries.len()));
        }
        let free = entries.values().filter(|(entry, ..)| !children.contains_key(&entry.id));
        let free = free.map(|(entry, _, met)| self.waiting(entry.id, *met));
        let mut ready: BinaryHeap<Waiting> = free.collect::<Result<_, _>>()?;
        let mut ordered = Vec::with_capacity(entries.len());
        while let Some((.., id)) = ready.pop() {
            let Some((entry, wanted, _)) = entries.remove(&id) else { continue };
            for parent in &entry.parents {
                let left = children.get_mut(parent).expect("it was counted above");
                *left -= 1;
                if *left == 0
                    && let Some((_, _, met)) = entries.get(parent)
                {
                    ready.push(self.waiting(*parent, *met)?);
                }
            }
            ordered.push((entry, wanted));
        }
        let mut told = close_gaps(ordered);
        if self.query.order == Order::Topological {
            told.make_contiguous().reverse();
        } else {
            told.truncate(told.len().saturating_sub(std::mem::take(&mut self.skip)));
            told.drain(..told.len().saturating_sub(self.left));
        }
        self.ordered = Some(told);
        Ok(())
    }
}

/// Leaves out what is not wanted, and gives what stays the nearest ancestors that stay as parents. Takes snapshots before their
/// parents, and answers the other way around.
fn close_gaps(ordered: Vec<(LogEntry, bool)>) -> VecDeque<LogEntry> {
    // For each snapshot, itself where it stays, else what stands for it.
    let mut stands: HashMap<SnapshotId, Vec<SnapshotId>> = HashMap::with_capacity(ordered.len());
    let mut told = VecDeque::with_capacity(ordered.len());
    for (mut entry, wanted) in ordered.into_iter().rev() {
        let mut parents: Vec<SnapshotId> = Vec::with_capacity(entry.parents.len());
        for ancestor in entry.parents.iter().filter_map(|parent| stands.get(parent)).flatten() {
            if !parents.contains(ancestor) {
                parents.push(*ancestor);
            }
        }
        if wanted {
            stands.insert(entry.id, vec![entry.id]);
            entry.parents = parents;
            told.push_back(entry);
        } else {
            stands.insert(entry.id, parents);
        }
    }
    told
}
