//! The node's repositories: git in and out, comparisons.
//!
//! Parent: storage, rest for one, permanent. Everything is done on blocking threads; nothing is kept between requests.

mod diff;
mod export;
mod import;
mod rebase;

use std::sync::Arc;

use bytes::Bytes;
use helix_database::RecordStore;
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Reply, Work};
use helix_messages::{DiffTrees, ExportGit, Exported, FileDiff, FoundFile, ImportGit, Imported, VersionsMsg};
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, FileMode, ObjectId};

/// Takes repositories in and writes branches.
pub struct RepositoriesActor;

/// What it stands on.
#[derive(Clone)]
pub struct RepositoriesArgs {
    /// The records, open.
    pub records: Arc<dyn RecordStore>,
    /// The content store, open.
    pub objects: Arc<dyn ObjectStore>,
    /// Larger files that are not committed are left where they are, in bytes: a checkout's virtual machine image is not source.
    pub file_cap_bytes: u64,
}

/// What it stands on, and what it has started.
pub struct RepositoriesState {
    args: RepositoriesArgs,
    work: Work<VersionsMsg>,
}

impl Actor for RepositoriesActor {
    type Msg = Admitted<VersionsMsg>;
    type State = RepositoriesState;
    type Arguments = RepositoriesArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: RepositoriesArgs,
    ) -> Result<RepositoriesState, ActorProcessingErr> {
        Ok(RepositoriesState { args, work: Work::of(&myself) })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut RepositoriesState,
    ) -> Result<(), ActorProcessingErr> {
        let objects = Arc::clone(&state.args.objects);
        match message.take() {
            VersionsMsg::ImportGit { import, reply } => state.import(import, reply),
            VersionsMsg::ExportGit { export, reply } => state.export(*export, reply),
            VersionsMsg::RebaseGit { rebase, reply } => state.on_thread(reply, move || rebase::rebase(&*objects, &rebase)),
            VersionsMsg::Diff { trees, reply } => state.diff(*trees, reply),
            VersionsMsg::ReadObject { object, limit, reply } => state.on_thread(reply, move || read(&*objects, object, limit)),
            VersionsMsg::FindFiles { tree, paths, reply } => state.on_thread(reply, move || find(&*objects, tree, paths)),
            VersionsMsg::Answered => {}
        }
        Ok(())
    }
}

impl RepositoriesState {
    /// Does `work` on a blocking thread and answers with its result.
    fn on_thread<T: Send + 'static>(&mut self, reply: Reply<T>, work: impl FnOnce() -> Result<T, Failure> + Send + 'static) {
        self.work.start(async move {
            let done = tokio::task::spawn_blocking(work).await;
            answer(reply, done.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "work on a repository panicked"))))
        });
    }

    fn import(&mut self, import: ImportGit, reply: Reply<Imported>) {
        let RepositoriesArgs { objects, file_cap_bytes, .. } = self.args.clone();
        self.on_thread(reply, move || import::import(&objects, &import, file_cap_bytes));
    }

    fn diff(&mut self, trees: DiffTrees, reply: Reply<Vec<FileDiff>>) {
        let RepositoriesArgs { records, objects, .. } = self.args.clone();
        self.work.start(async move { answer(reply, diff::diff(&*records, objects, trees).await) });
    }

    fn export(&mut self, export: ExportGit, reply: Reply<Exported>) {
        let RepositoriesArgs { records, objects, .. } = self.args.clone();
        self.work.start(async move { answer(reply, export::export(&*records, objects, export).await) });
    }
}

/// Sends an answer that may find nobody waiting any more.
fn answer<T>(reply: Reply<T>, result: Result<T, Failure>) -> VersionsMsg {
    let _ = reply.send(result);
    VersionsMsg::Answered
}

fn read(objects: &dyn ObjectStore, object: ObjectId, limit: u64) -> Result<Bytes, Failure> {
    let bytes = objects.get(object)?.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no object {object}")))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(
            Code::FileTooLarge,
            format!("object {object} has {} bytes, and the limit is {limit}", bytes.len()),
        ));
    }
    Ok(bytes)
}

fn find(objects: &dyn ObjectStore, tree: ObjectId, paths: Vec<String>) -> Result<Vec<FoundFile>, Failure> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        match helix_versions::entry_at(objects, tree, path.as_bytes())? {
            Some(entry) if entry.mode != FileMode::Directory => {
                found.push(FoundFile { path, mode: entry.mode, size: entry.size, object: entry.id });
            }
            _ => {}
        }
    }
    Ok(found)
}
