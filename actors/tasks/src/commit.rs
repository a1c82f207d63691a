//! From a workspace to a committed step: snapshot, snapshot object, one fenced write.
//!
//! The step's id is chosen before the first try, so a commit whose answer was lost is recognised when it is repeated.

use helix_database::{Applied, Then, Write};
use helix_messages::ReceivedSnapshot;
use helix_objects::{Durability, Mark, ObjectStore, Pin};
use helix_ports::SnapshotNote;
use helix_protocol::link::Snapshotted;
use helix_protocol::{
    AskedModel, Change, Code, Confinement, Epoch, ExitReport, Failure, Message, NewEvent, NewStep, RemarkId, SkippedFile, Spend,
    StepId, StepOutcome, StepRecord, TaskId, TaskRecord,
};
use helix_versions::write_snapshot;

use crate::host::{Host, Running, Workspace};
use crate::machine::Happening;
use crate::retry::{Verdict, verdict};
use crate::said::{self, Said};
use crate::shared::{self, Files, Pauses, Shared};
use crate::telling;

/// What a step says beside its files.
pub(crate) struct Draft {
    pub outcome: StepOutcome,
    pub summary: String,
    pub messages: Vec<Message>,
    /// What people had said that it is the first to hear.
    pub heard: Vec<RemarkId>,
    /// What models were asked.
    pub asked: Vec<AskedModel>,
    pub exits: Vec<ExitReport>,
    pub spend: Spend,
    pub then: Option<Then>,
    /// Told after the step's own event.
    pub events: Vec<NewEvent>,
}

/// Files with what is to be said of them.
#[derive(Clone)]
pub(crate) struct Taken {
    pub files: Files,
    pub changes: Vec<Change>,
    pub skipped: Vec<SkippedFile>,
    pub torn: Vec<String>,
    pub artifacts: Vec<String>,
    /// Everything the workspace's tree holds, in bytes; `None` where it was not looked at.
    pub logical_bytes: Option<u64>,
    /// What commands in it ran under.
    pub confinement: Option<Confinement>,
}

impl Taken {
    /// The files as they were before the step.
    pub fn nothing(files: Files) -> Self {
        Self {
            files,
            changes: Vec::new(),
            skipped: Vec::new(),
            torn: Vec::new(),
            artifacts: Vec::new(),
            logical_bytes: None,
            confinement: None,
        }
    }
}

/// Snapshots the workspace, unless the step certainly changed nothing. The files are in the node's store afterwards, synced.
pub(crate) async fn take(host: &mut Host, note: Option<SnapshotNote>, message: &str) -> Result<Taken, Failure> {
    let taken = looked_at(host, note, message).await?;
    let Some(before) = host.began_with.map(|files| files.tree) else { return Ok(taken) };
    // What other files brought with them the step has changed as much as what was done to them since.
    let after = taken.files.tree;
    let changes = host.shared.on_store(move |store| Ok(helix_versions::diff(store, before, after)?)).await?;
    Ok(Taken { changes, ..taken })
}

async fn looked_at(host: &mut Host, note: Option<SnapshotNote>, message: &str) -> Result<Taken, Failure> {
    let unchanged = match (&host.workspace, &note) {
        (_, Some(SnapshotNote::Artifacts(_))) => false,
        // No step has run anything there. What a set-up makes of the files is seen by the next one, which has it open.
        (Workspace::Closed | Workspace::Opening(_), _) => true,
        (Workspace::Open(running), note) => note.is_some() && *running == Running::Nothing,
    };
    if unchanged {
        return Ok(Taken::nothing(host.files));
    }
    host.ready().await?;
    let artifacts = match note {
        Some(SnapshotNote::Artifacts(globs)) => globs,
        _ => Vec::new(),
    };
    snapshot(host, artifacts, message).await
}

async fn snapshot(host: &Host, artifacts: Vec<String>, message: &str) -> Result<Taken, Failure> {
    let (lease, before) = (&host.lease, host.files);
    let received = received(host, artifacts).await?;
    let Snapshotted { tree, changes, skipped, torn, artifacts, logical_bytes, confinement, .. } = received.snapshot;
    let logical_bytes = Some(logical_bytes);
    if tree == before.tree {
        return Ok(Taken { files: before, changes, skipped, torn, artifacts, logical_bytes, confinement });
    }
    let metadata = [
        ("task", lease.task.to_string()),
        ("attempt", host.task.attempt.to_string()),
        ("ordinal", host.ordinal.to_string()),
        ("epoch", lease.epoch.to_string()),
    ];
    let object = shared::snapshot(tree, Some(before.snapshot), host.shared.now(), message, &metadata);
    let pin = Pin { task: lease.task, epoch: lease.epoch };
    let written = move |store: &dyn ObjectStore| {
        // Its files are pinned already; nothing names it before the step is committed, which may have to wait for the database.
        store.pin(pin, &[object.encode().id()])?;
        Ok(write_snapshot(store, &object, Durability::Group)?)
    };
    let (snapshot, mark) = host.shared.put(written).await?;
    let Mark(sequence) = mark.max(received.mark);
    Ok(Taken { files: Files { tree, snapshot, sequence }, changes, skipped, torn, artifacts, logical_bytes, confinement })
}

/// The workspace's files in the node's store. A full disk, here or there, is waited for: it is no fault of the step.
async fn received(host: &Host, artifacts: Vec<String>) -> Result<ReceivedSnapshot, Failure> {
    let (lease, fleet) = (&host.lease, &host.shared.args.fleet);
    let mut pauses = Pauses::new();
    loop {
        match fleet.snapshot(lease.worker, lease.task, lease.epoch, host.files.tree, artifacts.clone()).await {
            Err(failure) if failure.code == Code::DiskFull => {
                tracing::warn!(task = %lease.task, "waiting for space: {failure}");
                pauses.pause().await;
            }
            answer => return answer,
        }
    }
}

/// Commits a step. Answers with the step and the task as they are then.
pub(crate) async fn step(host: &Host, taken: Taken, draft: Draft) -> Result<(StepRecord, TaskRecord), Failure> {
    let ordinal = if draft.outcome == StepOutcome::Unfinished { host.turns } else { host.ordinal };
    let Taken { files, changes, skipped, torn, artifacts, logical_bytes, confinement } = taken;
    let Said { messages, long, sequence } = said::keep(host, draft.messages).await?;
    let step = NewStep {
        id: StepId::new(),
        task: host.lease.task,
        epoch: host.lease.epoch,
        attempt: host.task.attempt,
        parent: host.parent,
        ordinal,
        outcome: draft.outcome,
        summary: draft.summary,
        tree: files.tree,
        snapshot: files.snapshot,
        store_sequence: files.sequence.max(sequence),
        changes,
        skipped,
        torn,
        messages,
        long_messages: long,
        exits: draft.exits,
        artifacts,
        heard: draft.heard,
        asked: draft.asked,
        spend: draft.spend,
        worker: Some(host.lease.worker),
        confinement,
        started_at: host.started_at(),
    };
    let mut events = vec![telling::step_completed(&step, &host.lease.name, logical_bytes)];
    events.extend(draft.events);
    let commit = Write::Commit { step: Box::new(step), then: draft.then.map(Box::new), events };
    let committed = host.shared.write(commit).await.inspect_err(|refused| {
        if verdict(refused.code) == Verdict::Stale {
            tracing::warn!("step {ordinal} is not committed: {refused}");
        }
    });
    match committed? {
        Applied::Step { step, task, .. } => {
            if long.is_some() {
                unpin(&host.shared, host.lease.task, host.lease.epoch).await;
            }
            Ok((*step, *task))
        }
        other => Err(unexpected(&other)),
    }
}

/// Keeps the files of a command that still runs, if they differ from those kept last. Moves the head, and no turn.
pub(crate) async fn unfinished(host: &mut Host, kept: Option<Files>) -> Result<Option<Files>, Failure> {
    let taken = snapshot(host, Vec::new(), "files of a command that was still running").await?;
    if taken.files.tree == kept.unwrap_or(host.files).tree {
        return Ok(kept);
    }
    let files = taken.files;
    // A commit counts as progress and would give the step's retries back; these files are none.
    let then = (host.task.retries > 0).then(|| {
        let mut change = Happening::KeepRunning.change(host.lease.task, Some(host.lease.epoch), "");
        change.retries = Some(host.task.retries);
        Then::Status(change)
    });
    let draft = Draft {
        outcome: StepOutcome::Unfinished,
        summary: format!("step {} was still running", host.ordinal),
        messages: Vec::new(),
        heard: Vec::new(),
        asked: Vec::new(),
        exits: Vec::new(),
        spend: Spend::default(),
        then,
        events: Vec::new(),
    };
    let (step, _) = self::step(host, taken, draft).await?;
    host.parent = Some(step.step.id);
    unpin(&host.shared, host.lease.task, host.lease.epoch).await;
    Ok(Some(files))
}

/// Lets go of what was pinned while a step was being made: its commit keeps it alive from now on.
pub(crate) async fn unpin(shared: &Shared, task: TaskId, epoch: Epoch) {
    let released = shared.on_store(move |store| Ok(store.unpin(Pin { task, epoch })?)).await;
    if let Err(failure) = released {
        // Pins of a passed epoch are released with the next commit of the task; until then they only cost space.
        tracing::warn!(%task, "the step's pins could not be released: {failure}");
    }
}

/// The task of an answer that must carry one.
pub(crate) fn task_of(applied: Applied) -> Result<TaskRecord, Failure> {
    match applied {
        Applied::Task { task, .. } | Applied::Step { task, .. } => Ok(*task),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(applied: &Applied) -> Failure {
    Failure::new(Code::Internal, format!("the records answered a write with {applied:?}"))
}
