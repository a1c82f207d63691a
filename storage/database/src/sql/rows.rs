//! The rows in SQL. The statements are the same for both databases.

use std::sync::Arc;

use async_trait::async_trait;
use helix_protocol::{
    AttemptId, CallKey, CallOutcome, Checkpoint, Event, GatewayKey, JournalEntry, KeyId, ModelCall, Money, OwnerId, Question,
    QuestionId, Remark, RemarkId, StepId, StepRecord, TaskId, TaskRecord, TaskStatus, Timestamp, WorkerId, WorkerRecord,
};
use sqlx::any::AnyRow;
use sqlx::query;
use uuid::Uuid;

use super::columns::{self, big, count, get, json, named, needed_column, parsed, step_columns, step_content, task_columns, word};
use super::error::clash;
use super::group::{SqlRows, StepRow};
use super::statements::{APPEND_JOURNAL, CHANGE_TASK, ON_LINE, PUT_WORKER};
use crate::RecordError;
use crate::charge::{Charge, ChargeKind};
use crate::rows::{Change, Guard, Holder, Rows, StepPlace, TaskRow};

/// A value for a `CASE WHEN $n = 1` and the value beside it.
fn given<T, V>(value: Option<T>, inner: impl FnOnce(T) -> Option<V>) -> (i64, Option<V>) {
    match value {
        Some(value) => (1, inner(value)),
        None => (0, None),
    }
}

#[async_trait]
impl Rows for SqlRows<'_> {
    async fn task(&mut self, id: TaskId) -> Result<Option<TaskRow>, RecordError> {
        const SQL: &str = concat!("SELECT ", task_columns!(), ", ", needed_column!(), " FROM distributed_tasks WHERE id = $1");
        let Some(row) = self.one(query(SQL).bind(id.to_string())).await? else { return Ok(None) };
        Ok(Some(columns::task_and_needed(&row, self.spec(id).await?)?))
    }

    async fn insert_task(&mut self, row: &TaskRow, dependencies: &[TaskId]) -> Result<bool, RecordError> {
        let task = &row.record;
        let insert = query(
            "INSERT INTO distributed_tasks (id, owner_id, project_id, kind, priority, status, reason, epoch, attempt_id, head, steps, \
                retries, budget_money, budget_tokens, spent_money, spent_tokens, event_sequence, created_at, updated_at, version, \
                parent_id, spec) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12, $13, 0, 0, $14, $15, $15, 1, $16, $17) \
             ON CONFLICT (id) DO NOTHING",
        );
        let insert = insert
            .bind(task.id.to_string())
            .bind(task.owner.to_string())
            .bind(task.project.to_string())
            .bind(task.spec.work.kind().to_owned())
            .bind(task.spec.priority.weight())
            .bind(task.status.as_str())
            .bind(task.reason.clone())
            .bind(big(task.epoch.0))
            .bind(task.attempt.to_string())
            .bind(task.head.map(|head| head.to_string()))
            .bind(big(task.steps))
            .bind(task.spec.budget.money.map(|money| money.0))
            .bind(task.spec.budget.tokens.map(big))
            .bind(big(row.events))
            .bind(task.created_at.0)
            .bind(task.spec.parent.map(|parent| parent.to_string()))
            .bind(json(&*row.asked)?);
        if self.touch(insert).await? == 0 {
            return Ok(false);
        }
        for dependency in dependencies {
            let insert = query("INSERT INTO dependencies (task_id, depends_on) VALUES ($1, $2)");
            self.touch(insert.bind(task.id.to_string()).bind(dependency.to_string())).await?;
        }
        // It is claimed next.
        self.keep_spec(task.id, Arc::clone(&row.asked));
        Ok(true)
    }

    async fn change_task(
        &mut self,
        id: TaskId,
        guard: &Guard,
        change: &Change,
        now: Timestamp,
    ) -> Result<Option<TaskRow>, RecordError> {
        let (head_given, head) = given(guard.head, |head| head.map(|step| step.to_string()));
        let mut states = String::from(",");
        for status in &guard.status {
            states.push_str(status.as_str());
            states.push(',');
        }
        let (holder, node, worker) = match change.holder {
            Holder::Unchanged => (0, None, None),
            Holder::Nobody => (1, None, None),
            Holder::Is(node, worker) => (1, Some(node.to_string()), Some(worker.to_string())),
        };
        let (not_before_given, not_before) = given(change.not_before, |instant| instant.map(|instant| instant.0));
        let (finished_given, finished) = given(change.finished_at, |instant| instant.map(|instant| instant.0));
        let budget = change.budget.unwrap_or_default();
        let update = query(CHANGE_TASK)
            .bind(id.to_string())
            .bind(guard.epoch.map(|epoch| big(epoch.0)))
            .bind(head_given)
            .bind(head)
            .bind(states)
            .bind(i64::from(change.fence))
            .bind(change.status.map(|status| status.as_str()))
            .bind(change.reason.clone())
            .bind(holder)
            .bind(node)
            .bind(worker)
            .bind(change.head.map(|(step, _)| step.to_string()))
            .bind(change.head.map(|(_, ordinal)| big(ordinal)))
            .bind(change.retries.map(i64::from))
            .bind(not_before_given)
            .bind(not_before)
            .bind(i64::from(change.budget.is_some()))
            .bind(budget.money.map(|money| money.0))
            .bind(budget.tokens.map(big))
            .bind(change.money.0)
            .bind(big(change.tokens))
            .bind(finished_given)
            .bind(finished)
            .bind(big(change.events))
            .bind(now.0)
            .bind(change.hint.clone())
            .bind(change.attempt.map(|attempt| attempt.to_string()))
            .bind(i64::from(guard.heard));
        let Some(row) = self.one(update).await? else { return Ok(None) };
        self.has_changed();
        Ok(Some(columns::task_and_needed(&row, self.spec(id).await?)?))
    }

    async fn reserve_events(&mut self, task: TaskId, count_of: u64) -> Result<Option<u64>, RecordError> {
        let update =
            query("UPDATE distributed_tasks SET event_sequence = event_sequence + $2 WHERE id = $1 RETURNING event_sequence");
        let row = self.one(update.bind(task.to_string()).bind(big(count_of))).await?;
        if row.is_some() {
            self.has_changed();
        }
        row.map(|row| count(&row, "event_sequence")).transpose()
    }

    async fn task_of_key(&mut self, owner: OwnerId, key: &str) -> Result<Option<TaskId>, RecordError> {
        let select = query("SELECT task_id FROM idempotency_keys WHERE owner_id = $1 AND idempotency_key = $2");
        let row = self.one(select.bind(owner.to_string()).bind(key)).await?;
        row.map(|row| parsed(&row, "task_id")).transpose()
    }

    async fn remember_key(&mut self, owner: OwnerId, key: &str, task: TaskId, now: Timestamp) -> Result<(), RecordError> {
        let insert = query("INSERT INTO idempotency_keys (owner_id, idempotency_key, task_id, created_at) VALUES ($1, $2, $3, $4)");
        self.touch(insert.bind(owner.to_string()).bind(key).bind(task.to_string()).bind(now.0)).await?;
        Ok(())
    }

    async fn waiting_for(&mut self, task: TaskId) -> Result<Vec<TaskId>, RecordError> {
        let select = query(
            "SELECT d.task_id FROM dependencies d JOIN distributed_tasks t ON t.id = d.task_id \
             WHERE d.depends_on = $1 AND t.status = 'waiting_for_dependencies' ORDER BY d.task_id",
        );
        self.all(select.bind(task.to_string())).await?.iter().map(|row| parsed(row, "task_id")).collect()
    }

    async fn unmet_dependencies(&mut self, task: TaskId) -> Result<Vec<(TaskId, TaskStatus)>, RecordError> {
        let select = query(
            "SELECT t.id, t.status FROM dependencies d JOIN distributed_tasks t ON t.id = d.depends_on \
             WHERE d.task_id = $1 AND t.status <> 'completed' ORDER BY t.id",
        );
        let unmet = self.all(select.bind(task.to_string())).await?;
        unmet.iter().map(|row| Ok((parsed(row, "id")?, named(row, "status")?))).collect()
    }

    async fn step(&mut self, id: StepId) -> Result<Option<StepRecord>, RecordError> {
        const SQL: &str = concat!("SELECT ", step_columns!(), ", ", step_content!(), " FROM steps s WHERE s.id = $1");
        self.settle_steps().await?;
        self.one(query(SQL).bind(id.to_string())).await?.map(|row| columns::step(&row)).transpose()
    }

    async fn step_place(&mut self, id: StepId) -> Result<Option<StepPlace>, RecordError> {
        self.settle_steps().await?;
        let row = self.one(query("SELECT task_id, ordinal FROM steps WHERE id = $1").bind(id.to_string())).await?;
        row.map(|row| Ok(StepPlace { task: parsed(&row, "task_id")?, ordinal: count(&row, "ordinal")? })).transpose()
    }

    async fn on_line(&mut self, head: StepId, ancestor: StepId) -> Result<bool, RecordError> {
        self.settle_steps().await?;
        Ok(self.one(query(ON_LINE).bind(head.to_string()).bind(ancestor.to_string())).await?.is_some())
    }

    async fn insert_step(&mut self, record: &StepRecord, of: &TaskRecord) -> Result<bool, RecordError> {
        self.put_step(StepRow { record: record.clone(), owner: of.owner, project: of.project }).await
    }

    async fn append_journal(&mut self, entry: &JournalEntry, now: Timestamp) -> Result<bool, RecordError> {
        self.settle_journal(entry.attempt).await?;
        let charge = Charge::of(&entry.body);
        let append = query(APPEND_JOURNAL)
            .bind(entry.attempt.to_string())
            .bind(big(entry.sequence))
            .bind(entry.task.to_string())
            .bind(big(entry.epoch.0))
            .bind(big(entry.ordinal))
            .bind(charge.as_ref().map(|charge| charge.kind.as_str()))
            .bind(charge.as_ref().map(|charge| charge.call.0.clone()))
            .bind(charge.as_ref().map_or(0, |charge| charge.money.0))
            .bind(charge.as_ref().map_or(0, |charge| big(charge.tokens)))
            .bind(now.0)
            .bind(json(&entry.body)?);
        Ok(self.touch(append).await? == 1)
    }

    async fn journal_entry(&mut self, attempt: AttemptId, sequence: u64) -> Result<Option<JournalEntry>, RecordError> {
        self.settle_journal(attempt).await?;
        let select = query(
            "SELECT task_id, attempt_id, sequence, ordinal, epoch, body FROM journal WHERE attempt_id = $1 AND sequence = $2",
        );
        let row = self.one(select.bind(attempt.to_string()).bind(big(sequence))).await?;
        row.map(|row| columns::journal_entry(&row)).transpose()
    }

    async fn journal_charges(&mut self, attempt: AttemptId) -> Result<Vec<Charge>, RecordError> {
        self.settle_journal(attempt).await?;
        let select = query(
            "SELECT charge, call_key, money, tokens FROM journal WHERE attempt_id = $1 AND charge IS NOT NULL ORDER BY sequence",
        );
        self.all(select.bind(attempt.to_string())).await?.iter().map(charge).collect()
    }

    async fn has_journal(&mut self, attempt: AttemptId) -> Result<bool, RecordError> {
        self.settle_journal(attempt).await?;
        let select = query("SELECT sequence FROM journal WHERE attempt_id = $1 LIMIT 1");
        Ok(self.one(select.bind(attempt.to_string())).await?.is_some())
    }

    async fn drop_journal(&mut self, attempt: AttemptId, ordinal: u64) -> Result<(), RecordError> {
        self.gather_drop(attempt, ordinal);
        Ok(())
    }

    async fn record_lost_spend(&mut self, task: &TaskRecord, money: Money, tokens: u64, now: Timestamp) -> Result<(), RecordError> {
        let insert = query(
            "INSERT INTO lost_spend (id, task_id, owner_id, project_id, money, tokens, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        );
        let insert = insert
            .bind(Uuid::now_v7().to_string())
            .bind(task.id.to_string())
            .bind(task.owner.to_string())
            .bind(task.project.to_string())
            .bind(money.0)
            .bind(big(tokens))
            .bind(now.0);
        self.touch(insert).await?;
        Ok(())
    }

    async fn checkpoint(&mut self, task: TaskId, name: &str) -> Result<Option<StepId>, RecordError> {
        let select = query("SELECT step_id FROM task_checkpoints WHERE task_id = $1 AND name = $2");
        let row = self.one(select.bind(task.to_string()).bind(name)).await?;
        row.map(|row| parsed(&row, "step_id")).transpose()
    }

    async fn insert_checkpoint(&mut self, checkpoint: &Checkpoint, of: &TaskRecord) -> Result<(), RecordError> {
        let insert = query(
            "INSERT INTO task_checkpoints (task_id, name, step_id, owner_id, project_id, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let insert = insert
            .bind(checkpoint.task.to_string())
            .bind(checkpoint.name.clone())
            .bind(checkpoint.step.to_string())
            .bind(of.owner.to_string())
            .bind(of.project.to_string())
            .bind(checkpoint.created_at.0);
        self.touch(insert).await?;
        Ok(())
    }

    async fn question(&mut self, id: QuestionId) -> Result<Option<Question>, RecordError> {
        let select = query("SELECT * FROM questions WHERE id = $1");
        self.one(select.bind(id.to_string())).await?.map(|row| columns::question(&row)).transpose()
    }

    async fn insert_question(&mut self, question: &Question, of: &TaskRecord) -> Result<(), RecordError> {
        let insert = query(
            "INSERT INTO questions (id, task_id, owner_id, project_id, subject, text, choices, answer, created_at, answered_at, \
             version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1)",
        );
        let insert = insert
            .bind(question.id.to_string())
            .bind(question.task.to_string())
            .bind(of.owner.to_string())
            .bind(of.project.to_string())
            .bind(json(&question.subject)?)
            .bind(question.text.clone())
            .bind(json(&question.choices)?)
            .bind(question.answer.clone())
            .bind(question.created_at.0)
            .bind(question.answered_at.map(|instant| instant.0));
        self.touch(insert).await?;
        Ok(())
    }

    async fn open_question(&mut self, task: TaskId) -> Result<Option<Question>, RecordError> {
        let select = query(
            "SELECT * FROM questions \
             WHERE task_id = $1 AND answered_at IS NULL ORDER BY created_at DESC, id DESC LIMIT 1",
        );
        self.one(select.bind(task.to_string())).await?.map(|row| columns::question(&row)).transpose()
    }

    async fn close_questions(&mut self, task: TaskId, now: Timestamp) -> Result<(), RecordError> {
        let update =
            query("UPDATE questions SET answered_at = $2, version = version + 1 WHERE task_id = $1 AND answered_at IS NULL");
        self.touch(update.bind(task.to_string()).bind(now.0)).await?;
        Ok(())
    }

    async fn answer_question(&mut self, id: QuestionId, answer: &str, now: Timestamp) -> Result<(), RecordError> {
        let update = query(
            "UPDATE questions SET answer = $2, answered_at = $3, version = version + 1 WHERE id = $1 AND answered_at IS NULL",
        );
        // Another node answered since the question was read: the rule has to see that answer.
        if self.touch(update.bind(id.to_string()).bind(answer).bind(now.0)).await? == 1 { Ok(()) } else { Err(clash()) }
    }

    async fn remark(&mut self, id: RemarkId) -> Result<Option<Remark>, RecordError> {
        let select = query("SELECT * FROM remarks WHERE id = $1").bind(id.to_string());
        self.one(select).await?.map(|row| columns::remark(&row)).transpose()
    }

    async fn insert_remark(&mut self, remark: &Remark, of: &TaskRecord) -> Result<(), RecordError> {
        let insert = query(
            "INSERT INTO remarks (id, task_id, owner_id, project_id, text, actor, created_at, version) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 1)",
        );
        let insert = insert
            .bind(remark.id.to_string())
            .bind(remark.task.to_string())
            .bind(of.owner.to_string())
            .bind(of.project.to_string())
            .bind(remark.text.clone())
            .bind(remark.actor.clone())
            .bind(remark.created_at.0);
        self.touch(insert).await?;
        Ok(())
    }

    async fn hear_remark(&mut self, id: RemarkId, task: TaskId, step: StepId) -> Result<(), RecordError> {
        let update =
            query("UPDATE remarks SET step_id = $3, version = version + 1 WHERE id = $1 AND task_id = $2 AND step_id IS NULL");
        self.touch(update.bind(id.to_string()).bind(task.to_string()).bind(step.to_string())).await?;
        Ok(())
    }

    async fn has_unheard(&mut self, task: TaskId) -> Result<bool, RecordError> {
        let select = query("SELECT id FROM remarks WHERE task_id = $1 AND step_id IS NULL LIMIT 1");
        Ok(self.one(select.bind(task.to_string())).await?.is_some())
    }

    async fn worker(&mut self, id: WorkerId) -> Result<Option<WorkerRecord>, RecordError> {
        self.one(query("SELECT * FROM workers WHERE id = $1").bind(id.to_string()))
            .await?
            .map(|row| columns::worker(&row))
            .transpose()
    }

    async fn worker_named(&mut self, name: &str) -> Result<Option<WorkerId>, RecordError> {
        let row = self.one(query("SELECT id FROM workers WHERE name = $1").bind(name)).await?;
        row.map(|row| parsed(&row, "id")).transpose()
    }

    async fn put_worker(&mut self, worker: &WorkerRecord, now: Timestamp) -> Result<(), RecordError> {
        let put = query(PUT_WORKER)
            .bind(worker.id.to_string())
            .bind(OwnerId::LOCAL.to_string())
            .bind(worker.name.clone())
            .bind(json(&worker.target)?)
            .bind(i64::from(worker.slots))
            .bind(word(&worker.lifecycle)?)
            .bind(word(&worker.status)?)
            .bind(word(&worker.health)?)
            .bind(worker.facts.as_ref().map(json).transpose()?)
            .bind(worker.reason.clone())
            .bind(worker.created_at.0)
            .bind(now.0)
            .bind(worker.last_seen_at.map(|instant| instant.0))
            .bind(big(worker.version));
        self.touch(put).await?;
        Ok(())
    }

    async fn delete_worker(&mut self, id: WorkerId) -> Result<bool, RecordError> {
        Ok(self.touch(query("DELETE FROM workers WHERE id = $1").bind(id.to_string())).await? > 0)
    }

    async fn key(&mut self, id: KeyId) -> Result<Option<GatewayKey>, RecordError> {
        let select = query("SELECT body FROM gateway_keys WHERE id = $1").bind(id.to_string());
        self.one(select).await?.map(|row| columns::from_json(&row, "body")).transpose()
    }

    async fn put_key(&mut self, key: &GatewayKey) -> Result<(), RecordError> {
        let put = query(
            "INSERT INTO gateway_keys (id, owner_id, project_id, hash, created_at, body, version) VALUES ($1, $2, $3, $4, $5, $6, 1) \
             ON CONFLICT (id) DO UPDATE SET body = excluded.body, version = gateway_keys.version + 1",
        );
        let put = put
            .bind(key.id.to_string())
            .bind(key.owner.to_string())
            .bind(key.project.to_string())
            .bind(key.hash.clone())
            .bind(key.created_at.0)
            .bind(json(key)?);
        self.touch(put).await?;
        Ok(())
    }

    async fn delete_key(&mut self, id: KeyId) -> Result<(), RecordError> {
        self.touch(query("DELETE FROM gateway_keys WHERE id = $1").bind(id.to_string())).await?;
        Ok(())
    }

    async fn insert_call(&mut self, call: &ModelCall) -> Result<(), RecordError> {
        let insert = query(
            "INSERT INTO model_calls (id, ended_at, owner_id, project_id, task_id, key_id, money, tokens, uncertain, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (id) DO UPDATE SET ended_at = excluded.ended_at, money = excluded.money, tokens = excluded.tokens, \
                uncertain = excluded.uncertain, body = excluded.body \
             WHERE model_calls.uncertain = 1",
        );
        let insert = insert
            .bind(call.id.to_string())
            .bind(call.at.0)
            .bind(call.owner.to_string())
            .bind(call.project.to_string())
            .bind(call.task.map(|task| task.to_string()))
            .bind(call.key.map(|key| key.to_string()))
            .bind(call.usage.cost.0)
            .bind(big(call.usage.total_tokens()))
            .bind(i64::from(call.outcome == CallOutcome::Uncertain))
            .bind(json(call)?);
        self.touch(insert).await?;
        Ok(())
    }

    async fn insert_event(&mut self, event: Event) -> Result<Event, RecordError> {
        self.gather_event(event)
    }
}

/// A charge from its columns.
pub(super) fn charge(row: &AnyRow) -> Result<Charge, RecordError> {
    let kind: &str = get(row, "charge")?;
    Ok(Charge {
        call: CallKey(get(row, "call_key")?),
        kind: if kind == ChargeKind::Reserved.as_str() { ChargeKind::Reserved } else { ChargeKind::Settled },
        money: Money(get(row, "money")?),
        tokens: count(row, "tokens")?,
    })
}
