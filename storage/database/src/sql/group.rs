//! The transaction of one group of writes: its members, what of them can be taken back, and what is gathered for all of them.

use std::sync::Arc;

use helix_protocol::{AttemptId, Event, OwnerId, ProjectId, StepRecord, TaskId, TaskSpec};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, query, raw_sql};

use super::columns::{self, StepDetail, StepNotes, big, json, word};
use super::error::failure;
use super::specs::Specs;
use super::statements::{Batch, DROP_JOURNALS, INSERT_EVENTS, INSERT_STEPS, Placeholders};
use crate::RecordError;

/// A group's transaction.
///
/// A statement costs a hop to the connection's thread or to the server, so what nothing in the transaction reads (events) or seldom
/// does (steps, the journal's rows that are to go) is gathered and written for the whole group at once.
pub(crate) struct SqlRows<'t> {
    connection: &'t mut AnyConnection,
    specs: &'t Specs,
    placeholders: Placeholders,
    /// What members have that write more than a journal entry.
    savepoint: Savepoint,
    read_specs: Vec<(TaskId, Arc<TaskSpec>)>,
    next_event: u64,
    last_event: u64,
    events: Vec<Event>,
    steps: Vec<StepRow>,
    drops: Vec<(AttemptId, u64)>,
    /// Those of earlier members that went since the last mark.
    dropped: Vec<(AttemptId, u64)>,
    /// Something was changed since the last mark.
    changed: bool,
    /// There is a savepoint.
    saved: bool,
    /// Where the member began; none before the first.
    mark: Option<Mark>,
}

/// A step with whose it is.
pub(super) struct StepRow {
    pub record: StepRecord,
    pub owner: OwnerId,
    pub project: ProjectId,
}

/// What was gathered when a member began.
#[derive(Clone, Copy)]
struct Mark {
    next_event: u64,
    events: usize,
    drops: usize,
    read_specs: usize,
    savepoint: Savepoint,
}

/// Whether a member can be taken back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Savepoint {
    /// It has a savepoint.
    Set,
    /// Only the whole transaction can be: nearly every member is refused, if at all, before it has changed anything.
    Spared,
}

impl<'t> SqlRows<'t> {
    /// `events` are the sequences that this transaction may give.
    pub fn new(
        connection: &'t mut AnyConnection,
        specs: &'t Specs,
        events: std::ops::Range<u64>,
        placeholders: Placeholders,
        savepoint: Savepoint,
    ) -> Self {
        Self {
            connection,
            specs,
            placeholders,
            savepoint,
            read_specs: Vec::new(),
            next_event: events.start,
            last_event: events.end,
            events: Vec::new(),
            steps: Vec::new(),
            drops: Vec::new(),
            dropped: Vec::new(),
            changed: false,
            saved: false,
            mark: None,
        }
    }

    /// The next member begins: to this point [`undo`](Self::undo) goes back.
    pub async fn mark(&mut self, savepoint: Savepoint) -> Result<(), RecordError> {
        if savepoint == Savepoint::Set {
            let sql = if self.saved { "RELEASE SAVEPOINT member; SAVEPOINT member" } else { "SAVEPOINT member" };
            self.saved = true;
            raw_sql(sql).execute(&mut *self.connection).await.map_err(failure)?;
        }
        self.changed = false;
        self.dropped.clear();
        self.mark = Some(Mark {
            next_event: self.next_event,
            events: self.events.len(),
            drops: self.drops.len(),
            read_specs: self.read_specs.len(),
            savepoint,
        });
        Ok(())
    }

    /// True where the member has changed nothing that would have to be taken back.
    pub fn is_untouched(&self) -> bool {
        !self.changed
    }

    /// Takes back what was done since the mark. Without a savepoint that may only be what is gathered.
    pub async fn undo(&mut self) -> Result<(), RecordError> {
        let Some(mark) = self.mark else { return Ok(()) };
        self.next_event = mark.next_event;
        self.events.truncate(mark.events);
        self.drops.truncate(mark.drops);
        self.read_specs.truncate(mark.read_specs);
        if mark.savepoint == Savepoint::Set {
            self.drops.append(&mut self.dropped);
            raw_sql("ROLLBACK TO SAVEPOINT member").execute(&mut *self.connection).await.map_err(failure)?;
        }
        Ok(())
    }

    /// Writes what was gathered. Answers with the specs met on the way, to be kept once the transaction is committed.
    pub async fn finish(mut self) -> Result<Vec<(TaskId, Arc<TaskSpec>)>, RecordError> {
        self.settle_steps().await?;
        self.drop_gathered().await?;
        let events = std::mem::take(&mut self.events);
        let mut rest = &events[..];
        while !rest.is_empty() {
            let (rows, more) = rest.split_at(Batch::of(rest.len()));
            self.insert_events(rows).await?;
            rest = more;
        }
        Ok(self.read_specs)
    }

    /// Numbers an event; it is written with the others of the group.
    pub(super) fn gather_event(&mut self, mut event: Event) -> Result<Event, RecordError> {
        if self.next_event == self.last_event {
            return Err(RecordError::Backend("one group records more events than a transaction can number".to_owned()));
        }
        event.sequence = self.next_event;
        self.next_event += 1;
        self.events.push(event.clone());
        Ok(event)
    }

    /// Inserts a step, or has it inserted with the others of the group where no member is taken back by itself. Answers whether it
    /// was new, which of one that is gathered is found out later.
    pub(super) async fn put_step(&mut self, step: StepRow) -> Result<bool, RecordError> {
        match self.savepoint {
            Savepoint::Set => Ok(self.insert_steps(&[step]).await? == 1),
            Savepoint::Spared => {
                self.steps.push(step);
                self.changed = true;
                Ok(true)
            }
        }
    }

    /// The steps gathered, before somebody looks at steps or the group ends. Refused where one of them exists: the group has to be
    /// tried again with each by itself.
    pub(super) async fn settle_steps(&mut self) -> Result<(), RecordError> {
        let (steps, changed) = (std::mem::take(&mut self.steps), self.changed);
        let mut rest = &steps[..];
        while !rest.is_empty() {
            let (rows, more) = rest.split_at(Batch::of(rest.len()));
            self.changed = true;
            if self.insert_steps(rows).await? < rows.len() as u64 {
                return Err(RecordError::Conflict("a step of the group exists".to_owned()));
            }
            rest = more;
        }
        // The member's own step counted when it was gathered, and those of earlier members are not its doing.
        self.changed = changed;
        Ok(())
    }

    async fn insert_steps(&mut self, steps: &[StepRow]) -> Result<u64, RecordError> {
        let mut insert = query(INSERT_STEPS.get(self.placeholders, steps.len()));
        for StepRow { record, owner, project } in steps {
            let step = &record.step;
            insert = insert
                .bind(step.id.to_string())
                .bind(step.task.to_string())
                .bind(owner.to_string())
                .bind(project.to_string())
                .bind(step.attempt.to_string())
                .bind(step.parent.map(|parent| parent.to_string()))
                .bind(big(step.ordinal))
                .bind(big(step.epoch.0))
                .bind(word(&step.outcome)?)
                .bind(step.summary.clone())
                .bind(step.tree.to_string())
                .bind(step.snapshot.to_string())
                .bind(big(step.store_sequence))
                .bind(big(step.changes.len() as u64))
                .bind(i64::from(step.spend.model_calls))
                .bind(i64::from(step.spend.uncertain_calls))
                .bind(step.spend.money.0)
                .bind(big(step.spend.tokens))
                .bind(step.worker.map(|worker| worker.to_string()))
                .bind(step.started_at.0)
                .bind(record.committed_at.0)
                .bind(StepDetail::text_of(step)?)
                .bind(json(&step.messages)?)
                .bind(step.long_messages.map(|object| object.to_string()))
                .bind(StepNotes::text_of(step)?);
        }
        self.touch(insert).await
    }

    /// Has the journal of an attempt go up to a turn, with the others of the group.
    pub(super) fn gather_drop(&mut self, attempt: AttemptId, ordinal: u64) {
        self.drops.push((attempt, ordinal));
    }

    /// A spec that the group will ask for again.
    pub(super) fn keep_spec(&mut self, task: TaskId, spec: Arc<TaskSpec>) {
        self.read_specs.push((task, spec));
    }

    /// The member has changed a row that a statement answered with.
    pub(super) fn has_changed(&mut self) {
        self.changed = true;
    }

    async fn insert_events(&mut self, events: &[Event]) -> Result<(), RecordError> {
        let mut insert = query(INSERT_EVENTS.get(self.placeholders, events.len()));
        for event in events {
            insert = insert
                .bind(big(event.sequence))
                .bind(event.id.to_string())
                .bind(event.event.task.map(|task| task.to_string()))
                .bind(big(event.task_sequence))
                .bind(event.event.worker.map(|worker| worker.to_string()))
                .bind(OwnerId::LOCAL.to_string())
                .bind(ProjectId::DEFAULT.to_string())
                .bind(i64::from(event.schema))
                .bind(event.event.kind.as_str())
                .bind(word(&event.event.severity)?)
                .bind(event.event.actor.clone())
                .bind(event.event.message.clone())
                .bind(event.at.0)
                .bind(json(&event.event.detail)?);
        }
        self.touch(insert).await?;
        Ok(())
    }

    /// Before somebody looks at the journal of an attempt.
    pub(super) async fn settle_journal(&mut self, attempt: AttemptId) -> Result<(), RecordError> {
        if self.drops.iter().any(|(dropped, _)| *dropped == attempt) { self.drop_gathered().await } else { Ok(()) }
    }

    /// The journal's rows that are to go, before somebody looks at the journal or the group ends.
    async fn drop_gathered(&mut self) -> Result<(), RecordError> {
        let (drops, changed) = (std::mem::take(&mut self.drops), self.changed);
        let mut rest = &drops[..];
        while !rest.is_empty() {
            let (some, more) = rest.split_at(Batch::of(rest.len()));
            let delete = some.iter().fold(query(DROP_JOURNALS.get(self.placeholders, some.len())), |delete, (attempt, ordinal)| {
                delete.bind(attempt.to_string()).bind(big(*ordinal))
            });
            self.touch(delete).await?;
            rest = more;
        }
        // Those before the mark are not this member's doing, and go again if they are taken back with it.
        self.changed = changed;
        if let Some(mark) = &mut self.mark {
            self.dropped.extend_from_slice(&drops[..mark.drops]);
            self.changed |= drops.len() > mark.drops;
            mark.drops = 0;
        }
        Ok(())
    }

    pub(super) async fn one(&mut self, query: Query<'_, Any, AnyArguments>) -> Result<Option<AnyRow>, RecordError> {
        query.fetch_optional(&mut *self.connection).await.map_err(failure)
    }

    pub(super) async fn all(&mut self, query: Query<'_, Any, AnyArguments>) -> Result<Vec<AnyRow>, RecordError> {
        query.fetch_all(&mut *self.connection).await.map_err(failure)
    }

    /// Executes and answers how many rows it touched.
    pub(super) async fn touch(&mut self, query: Query<'_, Any, AnyArguments>) -> Result<u64, RecordError> {
        let rows = query.execute(&mut *self.connection).await.map_err(failure)?.rows_affected();
        self.changed |= rows > 0;
        Ok(rows)
    }

    pub(super) async fn spec(&mut self, id: TaskId) -> Result<Arc<TaskSpec>, RecordError> {
        let read = self.read_specs.iter().find(|(task, _)| *task == id).map(|(_, spec)| Arc::clone(spec));
        if let Some(spec) = read.or_else(|| self.specs.get(id)) {
            return Ok(spec);
        }
        let row = self.one(query("SELECT spec FROM distributed_tasks WHERE id = $1").bind(id.to_string())).await?;
        let row = row.ok_or_else(|| RecordError::NotFound(format!("task {id}")))?;
        let spec: Arc<TaskSpec> = Arc::new(columns::from_json(&row, "spec")?);
        self.read_specs.push((id, Arc::clone(&spec)));
        Ok(spec)
    }
}
