//! The files of a folder after its head has moved. Where they cannot follow, the head goes back: a head whose files are another
//! snapshot's would make of the next commit of the folder a silent step back.

use helix_protocol::{Failure, ObjectId};
use helix_versions::{LocalChanges, Undo, VersionError, WorkingFolder, WorkspaceName};

use super::unfinished::{self, Move};
use crate::context::Context;
use crate::here::Here;
use crate::render::path;

/// A head that has moved.
pub struct Moved<'a> {
    /// Where it is.
    pub here: &'a Here,
    /// Whose it is.
    pub workspace: &'a WorkspaceName,
    /// What moved it.
    pub verb: &'a str,
    /// The entry of the operation log to take back; `None` where nothing was written.
    pub operation: Option<u64>,
    /// The tree that the files came of: a path that this has as `to` does stays what it is.
    pub from: ObjectId,
    /// The tree that they are to become.
    pub to: ObjectId,
    /// What the files are, for the way back.
    pub back: ObjectId,
    /// What becomes of changes that no commit has.
    pub changes: LocalChanges,
}

/// Makes the files of `back` of those of `to`. What somebody wrote meanwhile stays, as a change against `back`: it must not keep
/// the others where they are.
pub fn go_back(here: &Here, folder: &mut WorkingFolder, to: ObjectId, back: ObjectId) -> Result<(), VersionError> {
    let store = here.store();
    match folder.switch(store, Some(to), back, LocalChanges::Keep) {
        Err(VersionError::WouldOverwrite { .. }) => {}
        gone => return gone.map(drop),
    }
    let stays: Vec<_> = folder.conflicts_with(store, Some(to), back)?.into_iter().map(|conflict| conflict.path).collect();
    let changes = helix_versions::diff_entries(store, Some(to), back)?;
    let is_free = |path: &Vec<u8>| !stays.iter().any(|stays| path::is_beneath(stays, path));
    let paths: Vec<_> = changes.into_iter().map(|change| change.path).filter(is_free).collect();
    folder.restore(store, Some(to), back, &paths).map(drop)
}

impl Moved<'_> {
    /// Lets the files follow, or takes the move back.
    pub fn follow(&self, context: &Context<'_>, folder: &mut WorkingFolder) -> Result<(), Failure> {
        Move { from: self.from, to: Some(self.to) }.begin(self.here, self.workspace);
        match folder.switch(self.here.store(), Some(self.from), self.to, self.changes) {
            Ok(_) => {
                unfinished::end(self.here, self.workspace);
                Ok(())
            }
            Err(error) => Err(self.take_back(context, folder, error.into())),
        }
    }

    /// Takes the move back: the files first, since on a full disk what they leave is the room for the rest. Says how far that went.
    pub fn take_back(&self, context: &Context<'_>, folder: &mut WorkingFolder, failure: Failure) -> Failure {
        // Something failed half-way, so what is believed of the files is looked at anew.
        folder.distrust();
        let files = go_back(self.here, folder, self.to, self.back);
        let head = match self.operation {
            Some(number) => self.here.repository().undo(&self.here.caller(context, None), Undo::Entry(number)).map(drop),
            None => Ok(()),
        };
        if head.is_ok() && files.is_ok() {
            unfinished::end(self.here, self.workspace);
        }
        let Failure { code, message, hint } = failure;
        let verb = self.verb;
        let (outcome, next) = match (head, files) {
            (Ok(()), Ok(_)) => (format!("{verb} is taken back, head and files are as before"), hint),
            (Ok(()), Err(error)) => (
                format!("{verb} is taken back, but some files stay as it made them: {error}"),
                "when that is mended, `helios status` names them and `helios reset --hard` makes them the head's".to_owned(),
            ),
            (Err(error), _) => (
                format!("{verb} could not be taken back: {error}"),
                "commit nothing before that is mended and `helios undo` has taken it back".to_owned(),
            ),
        };
        Failure::new(code, format!("{message}\n{outcome}")).hint(next)
    }
}
