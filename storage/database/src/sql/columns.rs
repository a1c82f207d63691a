//! How a row becomes a value, and a value what is bound.

use std::str::FromStr;
use std::sync::Arc;

use helix_protocol::{
    AskedModel, Budget, Change, Checkpoint, Confinement, Epoch, Event, ExitReport, JournalEntry, Money, NewEvent, NewStep,
    Question, Remark, RemarkId, SkippedFile, SnapshotId, Spend, Spent, StepRecord, StepSummary, TaskRecord, TaskSpec, Timestamp,
    WorkerRecord,
};
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::error::failure;
use crate::rows::TaskRow;
use crate::{Descendant, RecordError};

type Result<T> = std::result::Result<T, RecordError>;

/// The columns of a task without its spec.
macro_rules! task_columns {
    () => {
        "id, owner_id, project_id, status, reason, hint, epoch, attempt_id, head, steps, node_id, worker_id, retries, not_before, \
         budget_money, budget_tokens, spent_money, spent_tokens, event_sequence, created_at, updated_at, finished_at, version"
    };
}
/// Whether some task names this one as a dependency, as a column of `distributed_tasks`.
macro_rules! needed_column {
    () => {
        "CAST(CASE WHEN EXISTS (SELECT 1 FROM dependencies d WHERE d.depends_on = distributed_tasks.id) THEN 1 ELSE 0 END AS BIGINT) \
         AS needed"
    };
}
/// The columns of a step without its content.
macro_rules! step_columns {
    () => {
        "s.id, s.task_id, s.attempt_id, s.parent_id, s.ordinal, s.epoch, s.outcome, s.summary, s.tree, s.snapshot, \
         s.store_sequence, s.files_changed, s.model_calls, s.uncertain_calls, s.money, s.tokens, s.worker_id, s.started_at, \
         s.committed_at, s.notes"
    };
}
/// The columns of a step's content.
macro_rules! step_content {
    () => {
        "s.detail, s.messages, s.long_messages"
    };
}
pub(crate) use {needed_column, step_columns, step_content, task_columns};

/// What a step holds beside its narrow columns and its messages.
#[derive(Serialize, Deserialize)]
pub(crate) struct StepDetail {
    changes: Vec<Change>,
    skipped: Vec<SkippedFile>,
    torn: Vec<String>,
    exits: Vec<ExitReport>,
    artifacts: Vec<String>,
    #[serde(default)]
    heard: Vec<RemarkId>,
    #[serde(default)]
    asked: Vec<AskedModel>,
    #[serde(default)]
    confinement: Option<Confinement>,
}

impl StepDetail {
    /// The text of a step's detail.
    pub fn text_of(step: &NewStep) -> Result<String> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            changes: &'a [Change],
            skipped: &'a [SkippedFile],
            torn: &'a [String],
            exits: &'a [ExitReport],
            artifacts: &'a [String],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            heard: &'a [RemarkId],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            asked: &'a [AskedModel],
            #[serde(skip_serializing_if = "Option::is_none")]
            confinement: &'a Option<Confinement>,
        }
        let NewStep { changes, skipped, torn, exits, artifacts, heard, asked, confinement, .. } = step;
        json(&Borrowed { changes, skipped, torn, exits, artifacts, heard, asked, confinement })
    }
}

/// What a summary says of a step beside its narrow columns. A column of its own, because listings do not read the detail.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StepNotes {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<SkippedFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    torn: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<String>,
}

impl StepNotes {
    /// The text of a step's notes; `None` where there are none.
    pub fn text_of(step: &NewStep) -> Result<Option<String>> {
        let NewStep { skipped, torn, artifacts, .. } = step;
        if skipped.is_empty() && torn.is_empty() && artifacts.is_empty() {
            return Ok(None);
        }
        json(&Self { skipped: skipped.clone(), torn: torn.clone(), artifacts: artifacts.clone() }).map(Some)
    }
}

/// JSON for a column.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| RecordError::Backend(format!("a value cannot be written as JSON: {error}")))
}

/// The word of an enum, as it stands in JSON without the quotes.
pub(crate) fn word(value: &impl Serialize) -> Result<String> {
    Ok(json(value)?.trim_matches('"').to_owned())
}

/// A count for a BIGINT column. What does not fit is capped: no count of ours comes near.
pub(crate) fn big(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A value of a column whose type the driver knows.
pub(crate) fn get<'r, T>(row: &'r AnyRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(column).map_err(failure)
}

/// A count.
pub(crate) fn count(row: &AnyRow, column: &str) -> Result<u64> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

/// An instant that may be missing.
fn instant(row: &AnyRow, column: &str) -> Result<Option<Timestamp>> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp))
}

/// A value written as text, such as an id.
pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(row: &AnyRow, column: &str) -> Result<T> {
    let text: &str = get(row, column)?;
    text.parse().map_err(|error: T::Err| damaged(column, &error))
}

/// A value written as text that may be missing.
fn maybe<T: FromStr<Err: std::fmt::Display>>(row: &AnyRow, column: &str) -> Result<Option<T>> {
    let text: Option<&str> = get(row, column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| damaged(column, &error))).transpose()
}

/// An enum written as its word.
pub(super) fn named<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T> {
    let text: &str = get(row, column)?;
    let word: StrDeserializer<'_, ValueError> = text.into_deserializer();
    T::deserialize(word).map_err(|error| damaged(column, &error))
}

/// A value written as JSON.
pub(crate) fn from_json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T> {
    let text: &str = get(row, column)?;
    serde_json::from_str(text).map_err(|error| damaged(column, &error))
}

fn damaged(column: &str, error: &dyn std::fmt::Display) -> RecordError {
    RecordError::Backend(format!("the column {column} holds something unexpected: {error}"))
}

fn budget(row: &AnyRow) -> Result<Budget> {
    Ok(Budget {
        money: get::<Option<i64>>(row, "budget_money")?.map(Money),
        tokens: get::<Option<i64>>(row, "budget_tokens")?.map(|tokens| tokens.unsigned_abs()),
    })
}

/// A task that another one made, whose journal adds this to what it has spent.
pub(crate) fn descendant(row: &AnyRow, journalled: Spent) -> Result<Descendant> {
    let committed = Spent { money: Money(get(row, "spent_money")?), tokens: count(row, "spent_tokens")? };
    let Spent { money, tokens } = committed.plus(journalled);
    Ok(Descendant {
        id: parsed(row, "id")?,
        parent: parsed(row, "parent_id")?,
        status: named(row, "status")?,
        budget: budget(row)?,
        spent: Spent { money: money.max(Money(get(row, "ledger_money")?)), tokens: tokens.max(count(row, "ledger_tokens")?) },
    })
}

/// A task whose spec is known; whether it is needed is not read.
pub(crate) fn task(row: &AnyRow, asked: Arc<TaskSpec>) -> Result<TaskRow> {
    let budget = budget(row)?;
    let record = TaskRecord {
        id: parsed(row, "id")?,
        owner: parsed(row, "owner_id")?,
        project: parsed(row, "project_id")?,
        spec: TaskSpec { budget, ..(*asked).clone() },
        status: named(row, "status")?,
        reason: get(row, "reason")?,
        hint: get(row, "hint")?,
        epoch: Epoch(count(row, "epoch")?),
        attempt: parsed(row, "attempt_id")?,
        head: maybe(row, "head")?,
        steps: count(row, "steps")?,
        node: maybe(row, "node_id")?,
        worker: maybe(row, "worker_id")?,
        retries: small(row, "retries")?,
        not_before: instant(row, "not_before")?,
        spent: Money(get(row, "spent_money")?),
        tokens: count(row, "spent_tokens")?,
        created_at: Timestamp(get(row, "created_at")?),
        updated_at: Timestamp(get(row, "updated_at")?),
        finished_at: instant(row, "finished_at")?,
        version: count(row, "version")?,
    };
    Ok(TaskRow { record, asked, events: count(row, "event_sequence")?, needed: false })
}

/// The same from a row that has [`needed_column`].
pub(crate) fn task_and_needed(row: &AnyRow, asked: Arc<TaskSpec>) -> Result<TaskRow> {
    Ok(TaskRow { needed: count(row, "needed")? > 0, ..task(row, asked)? })
}

fn small(row: &AnyRow, column: &str) -> Result<u32> {
    Ok(u32::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

/// A task that was read with its spec.
pub(crate) fn task_with_spec(row: &AnyRow) -> Result<TaskRecord> {
    let asked: TaskSpec = from_json(row, "spec")?;
    Ok(task(row, Arc::new(asked))?.record)
}

/// A step without content; its names come from elsewhere.
pub(crate) fn summary(row: &AnyRow) -> Result<StepSummary> {
    let noted = get::<Option<&str>>(row, "notes")?.is_some();
    let StepNotes { skipped, torn, artifacts } = if noted { from_json(row, "notes")? } else { StepNotes::default() };
    Ok(StepSummary {
        id: parsed(row, "id")?,
        task: parsed(row, "task_id")?,
        attempt: parsed(row, "attempt_id")?,
        parent: maybe(row, "parent_id")?,
        ordinal: count(row, "ordinal")?,
        epoch: Epoch(count(row, "epoch")?),
        outcome: named(row, "outcome")?,
        summary: get(row, "summary")?,
        tree: parsed(row, "tree")?,
        snapshot: SnapshotId(parsed(row, "snapshot")?),
        files_changed: count(row, "files_changed")?,
        skipped,
        torn,
        artifacts,
        spend: Spend {
            model_calls: small(row, "model_calls")?,
            tokens: count(row, "tokens")?,
            money: Money(get(row, "money")?),
            uncertain_calls: small(row, "uncertain_calls")?,
        },
        worker: maybe(row, "worker_id")?,
        checkpoints: Vec::new(),
        started_at: Timestamp(get(row, "started_at")?),
        committed_at: Timestamp(get(row, "committed_at")?),
    })
}

/// A whole step.
pub(crate) fn step(row: &AnyRow) -> Result<StepRecord> {
    let narrow = summary(row)?;
    let detail: StepDetail = from_json(row, "detail")?;
    let step = NewStep {
        id: narrow.id,
        task: narrow.task,
        epoch: narrow.epoch,
        attempt: narrow.attempt,
        parent: narrow.parent,
        ordinal: narrow.ordinal,
        outcome: narrow.outcome,
        summary: narrow.summary,
        tree: narrow.tree,
        snapshot: narrow.snapshot,
        store_sequence: count(row, "store_sequence")?,
        changes: detail.changes,
        skipped: detail.skipped,
        torn: detail.torn,
        messages: from_json(row, "messages")?,
        long_messages: maybe(row, "long_messages")?,
        exits: detail.exits,
        artifacts: detail.artifacts,
        heard: detail.heard,
        asked: detail.asked,
        spend: narrow.spend,
        worker: narrow.worker,
        confinement: detail.confinement,
        started_at: narrow.started_at,
    };
    Ok(StepRecord { step, committed_at: narrow.committed_at })
}

/// A journal entry.
pub(crate) fn journal_entry(row: &AnyRow) -> Result<JournalEntry> {
    Ok(JournalEntry {
        task: parsed(row, "task_id")?,
        attempt: parsed(row, "attempt_id")?,
        sequence: count(row, "sequence")?,
        ordinal: count(row, "ordinal")?,
        epoch: Epoch(count(row, "epoch")?),
        body: from_json(row, "body")?,
    })
}

/// A named step.
pub(crate) fn checkpoint(row: &AnyRow) -> Result<Checkpoint> {
    Ok(Checkpoint {
        task: parsed(row, "task_id")?,
        step: parsed(row, "step_id")?,
        name: get(row, "name")?,
        created_at: Timestamp(get(row, "created_at")?),
    })
}

/// A question.
pub(crate) fn question(row: &AnyRow) -> Result<Question> {
    Ok(Question {
        id: parsed(row, "id")?,
        task: parsed(row, "task_id")?,
        subject: from_json(row, "subject")?,
        text: get(row, "text")?,
        choices: from_json(row, "choices")?,
        answer: get(row, "answer")?,
        created_at: Timestamp(get(row, "created_at")?),
        answered_at: instant(row, "answered_at")?,
    })
}

/// Something that was said to a task.
pub(crate) fn remark(row: &AnyRow) -> Result<Remark> {
    Ok(Remark {
        id: parsed(row, "id")?,
        task: parsed(row, "task_id")?,
        text: get(row, "text")?,
        actor: get(row, "actor")?,
        created_at: Timestamp(get(row, "created_at")?),
        step: maybe(row, "step_id")?,
    })
}

/// A worker.
pub(crate) fn worker(row: &AnyRow) -> Result<WorkerRecord> {
    let facts: Option<&str> = get(row, "facts")?;
    Ok(WorkerRecord {
        id: parsed(row, "id")?,
        name: get(row, "name")?,
        target: from_json(row, "target")?,
        slots: small(row, "slots")?,
        lifecycle: named(row, "lifecycle")?,
        status: named(row, "status")?,
        health: named(row, "health")?,
        facts: facts.map(serde_json::from_str).transpose().map_err(|error| damaged("facts", &error))?,
        reason: get(row, "reason")?,
        created_at: Timestamp(get(row, "created_at")?),
        last_seen_at: instant(row, "last_seen_at")?,
        version: count(row, "version")?,
    })
}

/// An event.
pub(crate) fn event(row: &AnyRow) -> Result<Event> {
    Ok(Event {
        id: parsed(row, "id")?,
        sequence: count(row, "sequence")?,
        task_sequence: count(row, "task_sequence")?,
        schema: small(row, "schema_version")?,
        at: Timestamp(get(row, "created_at")?),
        event: NewEvent {
            kind: named(row, "kind")?,
            severity: named(row, "severity")?,
            task: maybe(row, "task_id")?,
            worker: maybe(row, "worker_id")?,
            actor: get(row, "actor")?,
            message: get(row, "message")?,
            detail: from_json(row, "detail")?,
        },
    })
}
