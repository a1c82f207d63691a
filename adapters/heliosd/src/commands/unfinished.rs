//! A note of each workspace whose files are on their way from one tree to another: `.helios/workspaces/NAME/moving`. It is written
//! before the head moves and crossed out when the files are the head's, so that what is left by an engine that was killed in
//! between is finished by the next command that needs the files, and is not committed as a change. A collection keeps what notes
//! name (`OpenRepository::trees_on_their_way`).
//!
//! Notes are of one length and written over each other in one file: making and removing a file takes as long as
//! the rest of a small move.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use helix_objects::no_follow;
use helix_protocol::{Code, Failure, ObjectId};
use helix_versions::{LocalChanges, WorkingFolder, WorkspaceName};

use super::keep::{Doomed, Reach, keep};
use crate::context::Context;
use crate::engine::MOVING;
use crate::engine::location::Location;
use crate::here::Here;

/// As long as a tree's id, and none.
const NOWHERE: &str = "----------------------------------------------------------------";

/// The trees that a folder's files are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// What they were.
    pub from: ObjectId,
    /// What they are becoming, where one of them may be it already.
    pub to: Option<ObjectId>,
}

impl Move {
    /// Notes the move.
    pub fn begin(self, here: &Here, workspace: &WorkspaceName) {
        let place = place(here, workspace);
        // Of a folder that nobody has looked at there is nothing yet.
        let made = fs::create_dir_all(place.parent().expect("it is beneath .helios"));
        // A full disk keeps nobody from going back to where there is room.
        if let Err(error) = made.and_then(|()| write_over(no_follow().create(true), &place, Some(self.from), self.to)) {
            tracing::warn!(%error, place = %place.display(), "a move of files could not be noted");
        }
    }

    fn read(here: &Here, workspace: &WorkspaceName) -> Result<Option<Self>, Failure> {
        let place = place(here, workspace);
        let text = match fs::read_to_string(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| Failure::io(place.display(), &error))?,
        };
        let mut lines = text.lines().map(|line| line.parse::<ObjectId>().ok());
        // What is no note says nothing of any file.
        Ok(lines.next().flatten().map(|from| Self { from, to: lines.next().flatten() }))
    }

    /// The ways on which files of either tree become those of `target`.
    fn steps(self, target: ObjectId) -> Vec<(ObjectId, ObjectId)> {
        let Self { from, to } = self;
        match to {
            Some(to) if to == target => vec![(from, to)],
            Some(to) if from == target => vec![(to, from)],
            Some(to) => vec![(from, to), (to, target)],
            None => vec![(from, target)],
        }
    }
}

fn write_over(options: &mut OpenOptions, place: &Path, from: Option<ObjectId>, to: Option<ObjectId>) -> io::Result<()> {
    let line = |tree: Option<ObjectId>| tree.map_or_else(|| NOWHERE.to_owned(), |tree| tree.to_string());
    options.write(true).truncate(false).open(place)?.write_all(format!("{}\n{}\n", line(from), line(to)).as_bytes())
}

/// A workspace of which it is noted that its files may be on their way, before it is known which heads move.
pub struct Noted {
    pub workspace: WorkspaceName,
    /// What the files are of.
    pub tree: ObjectId,
    /// False where another command had noted a move, which may be one that died: that says already what the files really are.
    pub is_own: bool,
}

impl Noted {
    /// Those that have a folder and are among the chosen, by name and by folder.
    pub fn all(here: &Here, chosen: impl Fn(&WorkspaceName, &Path) -> bool) -> Result<Vec<Self>, Failure> {
        let mut noted = Vec::new();
        for workspace in here.repository().workspaces()? {
            let root = here.place_of(&workspace).root;
            if root.is_dir() && chosen(&workspace.name, &root) {
                let tree = here.repository().folder_tree(&workspace)?;
                noted.push(Self::of(here, workspace.name, tree));
            }
        }
        Ok(noted)
    }

    /// One whose files are of `tree`.
    pub fn of(here: &Here, workspace: WorkspaceName, tree: ObjectId) -> Self {
        let note = Move { from: tree, to: None };
        let is_own = Move::read(here, &workspace).is_ok_and(|before| before.is_none_or(|before| before == note));
        if is_own {
            note.begin(here, &workspace);
        }
        Self { workspace, tree, is_own }
    }

    /// Whether the note that is there is of another move. In a turn of one's own its command has died: the next one there finishes
    /// that move, and this one with it.
    pub fn is_anothers(&self, here: &Here) -> bool {
        !self.is_own && Move::read(here, &self.workspace).is_ok_and(|noted| noted.is_some())
    }

    /// The files are the head's: what was noted here goes.
    pub fn end(&self, here: &Here) {
        if self.is_own {
            end(here, &self.workspace);
        }
    }
}

/// The files are the head's: the note is crossed out.
pub fn end(here: &Here, workspace: &WorkspaceName) {
    let place = place(here, workspace);
    match write_over(&mut no_follow(), &place, None, None) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, place = %place.display(), "the note of a move of files stays");
        }
        _ => {}
    }
}

fn place(here: &Here, workspace: &WorkspaceName) -> PathBuf {
    let location = Location { workspace: workspace.clone(), ..here.location.clone() };
    location.state().join(MOVING)
}

/// Finishes what a command left that ended while it moved files. Refused where changes that no commit has are in the way, unless
/// they are to be overwritten; then they are kept first.
pub fn settle(
    context: &mut Context<'_>,
    here: &Here,
    name: &WorkspaceName,
    folder: &mut WorkingFolder,
    changes: LocalChanges,
) -> Result<(), Failure> {
    let Some(left) = Move::read(here, name)? else { return Ok(()) };
    let workspace = here.repository().workspace(name)?;
    let target = here.repository().folder_tree(&workspace)?;
    if left == (Move { from: target, to: None }) {
        // The command was refused before anything moved.
        end(here, name);
        return Ok(());
    }
    let trees: Vec<ObjectId> = [Some(left.from), left.to].into_iter().flatten().collect();
    if !here.store().missing(&trees)?.is_empty() {
        // The store is another one by now, or a collection has forgotten them.
        end(here, name);
        let message =
            "a command had ended before all files were its snapshot's, and what they were before is not in the store any more";
        return match changes {
            LocalChanges::Keep => {
                Err(Failure::new(Code::InvalidState, message).hint("`helios status` names what differs; then try again"))
            }
            LocalChanges::Discard => Ok(()),
        };
    }
    let mut moved = 0;
    for (from, to) in left.steps(target) {
        if changes == LocalChanges::Discard {
            let (verb, reach) = ("reset", Reach::All);
            keep(context, folder, &mut Doomed { here, workspace: &workspace, verb, base: from, to, reach, seen: None })?;
        }
        let in_the_way = folder.foresee(here.store(), Some(from), to, changes)?;
        if !in_the_way.is_empty() {
            let Failure { message, .. } = super::in_the_way(&in_the_way, "what an earlier command left unfinished");
            return Err(Failure::new(Code::InvalidState, message).hint(
                "`helios reset --hard` makes all files the head's, and keeps what no commit has in a snapshot first; or move them away",
            ));
        }
        let done = folder.switch(here.store(), Some(from), to, changes)?;
        moved += done.written + done.removed;
        Move { from: to, to: None }.begin(here, name);
    }
    end(here, name);
    if moved > 0 {
        context.console.note("hint: a command had ended before all files were its snapshot's: now they are the head's")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use helix_objects::hash;

    use super::Move;

    #[test]
    fn files_of_two_trees_come_to_a_third_by_way_of_both() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| hash(text));
        assert_eq!(Move { from: a, to: None }.steps(b), [(a, b)]);
        assert_eq!(Move { from: a, to: Some(b) }.steps(b), [(a, b)]);
        assert_eq!(Move { from: a, to: Some(b) }.steps(a), [(b, a)]);
        assert_eq!(Move { from: a, to: Some(b) }.steps(c), [(a, b), (b, c)]);
    }
}
