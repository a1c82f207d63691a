//! POST /tasks/{id}/rebase, and where a task's files came from.

use std::path::PathBuf;

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use helix_messages::{Carried, CreateTask, RebaseGit, Rebased};
use helix_protocol::{
    AgentSpec, Base, Code, ExternalSpec, Failure, ObjectId, Principal, SnapshotId, StepId, TaskId, TaskRecord, TaskSpec, TaskWork,
};

use crate::api::{RebaseRequest, RebasedTask};
use crate::peer::principal;
use crate::problem::Problem;
use crate::server::Node;
use crate::task_actions::with;
use crate::{HttpArgs, body, resolve};

/// Most conflicting paths that the new task's first message names.
const NAMED: usize = 50;

/// Merges the task's files with a newer commit and makes a task that goes on from there. The original stays as it is.
pub(crate) async fn rebase(
    node: web::Data<Node>,
    id: web::Path<String>,
    bytes: Bytes,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (RebaseRequest { onto }, principal) = (body::read(&bytes)?, principal(&request));
    let rebased = with(&node, id, &request, |args, task| async move { make(&args, task, onto, principal).await }).await?;
    let location = format!("/api/v1/tasks/{}", rebased.task.id);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(rebased))
}

async fn make(args: &HttpArgs, task: TaskRecord, onto: Option<String>, principal: Principal) -> Result<RebasedTask, Failure> {
    let head = resolve::head(&task)?;
    let Origin { repository, git_commit, snapshot } = origin(args, &task).await?;
    let repository = repository.ok_or_else(|| {
        Failure::new(Code::InvalidRequest, format!("task {} was not made from a git repository", task.id.short()))
            .hint("only work on a repository's files can be carried onto another commit of it")
    })?;
    let ours = files(args, &task, head).await?;
    let label = format!("task {}", task.id.short());
    let merge = RebaseGit { repository: repository.clone(), from: git_commit, base: snapshot, ours, onto, label };
    let rebased = args.versions.rebase_git(merge).await?;
    let spec = spec(&task, head, &repository, &rebased);
    let create = CreateTask { spec, principal, project: task.project, idempotency_key: None };
    let made = args.tasks.create(create).await?;
    let Rebased { git_commit, conflicts, moved, .. } = rebased;
    Ok(RebasedTask { task: made, git_commit, conflicts, moved })
}

/// The original's, on the merged files. An agent is told what happened; a command task goes on with what it has not run yet.
fn spec(task: &TaskRecord, head: StepId, repository: &std::path::Path, rebased: &Rebased) -> TaskSpec {
    let mut spec = task.spec.clone();
    let short: String = rebased.git_commit.chars().take(12).collect();
    let title = spec.title.split(" (on ").next().unwrap_or_default().to_owned();
    spec.title = format!("{title} (on {short})");
    spec.base = Base::Snapshot {
        snapshot: rebased.onto,
        git_commit: Some(rebased.git_commit.clone()),
        repository: Some(repository.display().to_string()),
    };
    (spec.fork_of, spec.fork_files) = (Some(head), Some(rebased.merged));
    (spec.depends_on, spec.group) = (Vec::new(), None);
    // What was attempted several times goes on once.
    spec.work = spec.work.attempted().clone();
    if let TaskWork::Agent(AgentSpec { prompt: asked, .. }) | TaskWork::External(ExternalSpec { prompt: asked, .. }) =
        &mut spec.work
    {
        *asked = prompt(&short, rebased);
    }
    spec
}

fn prompt(commit: &str, rebased: &Rebased) -> String {
    let moved = match rebased.moved {
        1 => "1 file differs".to_owned(),
        several => format!("{several} files differ"),
    };
    let begin = format!(
        "The repository has moved on while you worked: your changes now stand on its commit {commit}, where {moved} from the commit \
         you began with. What you read of files earlier may have changed."
    );
    if rebased.conflicts.is_empty() {
        return format!(
            "{begin} Everything merged without conflicts. Check that your work still holds there, and mend it where it does not."
        );
    }
    let more = match rebased.conflicts.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("\n- and {more} more; search for lines that begin with <<<<<<<"),
    };
    let named: Vec<String> = rebased.conflicts.iter().take(NAMED).map(|path| format!("- {path}")).collect();
    format!(
        "{begin} These files could not be merged:\n{}{more}\n\nWhere lines conflict, both versions stand in the file between <<<<<<< (yours), \
         ======= and >>>>>>> (the repository's). A listed file without such marks is as you left it, or was removed by one side and \
         changed by the other. Resolve each so that both intentions hold, leave no marks, and check that the work still holds.",
        named.join("\n")
    )
}

/// Where a task's files came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// The repository.
    pub repository: Option<PathBuf>,
    /// The commit.
    pub git_commit: Option<String>,
    /// What was taken in of it.
    pub snapshot: Option<SnapshotId>,
}

/// Where a task's files came from, through the tasks it builds on.
pub(crate) async fn origin(args: &HttpArgs, task: &TaskRecord) -> Result<Origin, Failure> {
    let mut seen: Vec<TaskId> = vec![task.id];
    let mut base = task.spec.base.clone();
    loop {
        match base {
            Base::Empty => return Ok(Origin::default()),
            Base::Snapshot { snapshot, git_commit, repository } => {
                return Ok(Origin { repository: repository.map(PathBuf::from), git_commit, snapshot: Some(snapshot) });
            }
            Base::Task { task } if seen.contains(&task) => return Ok(Origin::default()),
            Base::Task { task } => {
                seen.push(task);
                match args.records.read().task(task).await? {
                    Some(task) => base = task.spec.base,
                    None => return Ok(Origin::default()),
                }
            }
        }
    }
}

/// What a task, or one it forks, was carried onto another commit with: the last time counts.
pub(crate) async fn carried(args: &HttpArgs, task: &TaskRecord) -> Result<Option<Carried>, Failure> {
    let mut spec = task.spec.clone();
    while let Some(after) = spec.fork_of {
        if let Some(files) = spec.fork_files {
            return Ok(Some(Carried { after, files, title: spec.title }));
        }
        match maker(args, after).await? {
            Some(task) => spec = task.spec,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// The task that made a step.
pub(crate) async fn maker(args: &HttpArgs, step: StepId) -> Result<Option<TaskRecord>, Failure> {
    match args.records.read().step(step).await? {
        Some(record) => Ok(args.records.read().task(record.step.task).await?),
        None => Ok(None),
    }
}

/// The files of a step as a task has them: where it only continues that step, those it brought along stand in for them. A
/// snapshot's id stands for its tree.
pub(crate) async fn files(args: &HttpArgs, task: &TaskRecord, step: StepId) -> Result<ObjectId, Failure> {
    if let (true, Some(files)) = (task.spec.fork_of == Some(step), task.spec.fork_files) {
        return Ok(files.0);
    }
    let record = args.records.read().step(step).await?;
    record.map(|record| record.step.tree).ok_or_else(|| Failure::new(Code::NotFound, format!("there is no step {step}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebased(conflicts: &[&str], moved: u64) -> Rebased {
        let snapshot = SnapshotId(ObjectId([1; 32]));
        let conflicts = conflicts.iter().map(|&path| path.to_owned()).collect();
        Rebased { git_commit: "a".repeat(40), onto: snapshot, merged: snapshot, conflicts, moved }
    }

    #[test]
    fn the_agent_is_told_which_files_conflict() {
        let text = prompt("aaaaaaaaaaaa", &rebased(&["src/a.rs", "b"], 1));
        assert!(text.contains("commit aaaaaaaaaaaa, where 1 file differs"), "{text}");
        assert!(text.contains("could not be merged:\n- src/a.rs\n- b\n\n"), "{text}");
        assert!(!prompt("aaaaaaaaaaaa", &rebased(&[], 3)).contains("<<<<<<<"));
    }
}
