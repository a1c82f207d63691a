//! Reading the tables.

use std::collections::HashSet;

use helix_protocol::{
    AttemptId, Checkpoint, Event, JournalEntry, ModelCall, Money, ObjectId, OwnerId, Payer, ProjectId, Question, Remark, Spent,
    StepId, StepRecord, StepSummary, TaskId, TaskRecord, TaskWork, Timestamp,
};

use super::tables::Tables;
use crate::charge::{self, Charge};
use crate::rows::TaskRow;
use crate::sql::columns::json;
use crate::summary::summarise;
use crate::{Descendant, EventFilter, LedgerFilter, RecordError, TaskFilter, named};

impl Tables {
    pub(super) fn filtered_tasks(&self, filter: &TaskFilter) -> Vec<TaskRecord> {
        let fits = |task: &&TaskRecord| filter.status.is_empty() || filter.status.contains(&task.status);
        let mut tasks: Vec<_> = self.tasks.values().map(|row| &row.record).filter(fits).cloned().collect();
        tasks.sort_by_key(|task| std::cmp::Reverse((task.created_at, task.id)));
        tasks.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
        tasks
    }

    pub(super) fn tasks_like(&self, digits: &str) -> Vec<TaskId> {
        let fits = |task: &&TaskRecord| {
            let id = task.id.0.simple().to_string();
            id.starts_with(digits) || id.ends_with(digits)
        };
        let mut tasks: Vec<_> = self.tasks.values().map(|row| &row.record).filter(fits).collect();
        tasks.sort_by_key(|task| std::cmp::Reverse((task.created_at, task.id)));
        tasks.into_iter().map(|task| task.id).collect()
    }

    pub(super) fn named_content(&self) -> Result<HashSet<ObjectId>, RecordError> {
        let mut named = HashSet::new();
        let mut name = |text: String| named::collect(&text, &mut named);
        for row in self.tasks.values() {
            name(json(&*row.asked)?);
        }
        for step in self.steps.values() {
            name(json(step)?);
        }
        for (entry, _) in self.journal.values() {
            name(json(entry)?);
        }
        Ok(named)
    }

    pub(super) fn dependents(&self, task: TaskId) -> Vec<TaskRecord> {
        self.waiting_ids(task).filter_map(|waiting| self.tasks.get(&waiting)).map(|row| row.record.clone()).collect()
    }

    pub(super) fn descendants(&self, task: TaskId) -> Vec<Descendant> {
        let (mut known, mut below) = (HashSet::from([task]), Vec::new());
        loop {
            let records = self.tasks.values().map(|row| &row.record);
            let next = |record: &&TaskRecord| record.spec.parent.is_some_and(|parent| known.contains(&parent));
            let found: Vec<Descendant> = records.filter(next).map(|record| self.descendant(record)).collect();
            if found.len() == below.len() {
                return found;
            }
            known.extend(found.iter().map(|found| found.id));
            below = found;
        }
    }

    /// A task that another made, with what it spent by itself.
    fn descendant(&self, task: &TaskRecord) -> Descendant {
        let made = self.journal_of(task.attempt).filter_map(|(entry, _)| Charge::of(&entry.body));
        let (money, tokens) = charge::total(made);
        let ledger = match task.spec.work {
            TaskWork::External(_) => self.ledger_spent(LedgerFilter { task: Some(task.id), ..LedgerFilter::default() }),
            _ => Spent::default(),
        };
        let (money, tokens) = (task.spent + money, task.tokens.saturating_add(tokens));
        Descendant {
            id: task.id,
            parent: task.spec.parent.unwrap_or(task.id),
            status: task.status,
            budget: task.spec.budget,
            spent: Spent { money: money.max(ledger.money), tokens: tokens.max(ledger.tokens) },
        }
    }

    /// A task's row as it is read.
    pub(super) fn seen(&self, row: &TaskRow) -> TaskRow {
        TaskRow { needed: self.waiting_ids(row.record.id).next().is_some(), ..row.clone() }
    }

    /// Whether something that was said to the task is unheard.
    pub(super) fn has_unheard(&self, task: TaskId) -> bool {
        self.remarks.values().any(|remark| remark.task == task && remark.step.is_none())
    }

    /// Tasks that name `task` as a dependency, by id.
    pub(super) fn waiting_ids(&self, task: TaskId) -> impl Iterator<Item = TaskId> {
        let least = TaskId(uuid::Uuid::nil());
        self.waits
            .range((task, least)..)
            .map(|((needed, waiting), ())| (*needed, *waiting))
            .take_while(move |(needed, _)| *needed == task)
            .map(|(_, waiting)| waiting)
    }

    /// The line to `head`, oldest first.
    pub(super) fn line(&self, head: StepId) -> Vec<&StepRecord> {
        let first = self.steps.get(&head);
        let mut line: Vec<_> =
            std::iter::successors(first, |record| record.step.parent.and_then(|parent| self.steps.get(&parent))).collect();
        line.reverse();
        line
    }

    pub(super) fn summary(&self, record: &StepRecord) -> StepSummary {
        let mut named: Vec<_> = self.checkpoints.values().filter(|checkpoint| checkpoint.step == record.step.id).collect();
        named.sort_by_key(|checkpoint| (checkpoint.created_at, &checkpoint.name));
        summarise(record, named.into_iter().map(|checkpoint| checkpoint.name.clone()).collect())
    }

    pub(super) fn steps_of(&self, task: TaskId) -> Vec<StepSummary> {
        let mut steps: Vec<_> = self.steps.values().filter(|record| record.step.task == task).collect();
        steps.sort_by_key(|record| (record.committed_at, record.step.ordinal, record.step.id));
        steps.into_iter().map(|record| self.summary(record)).collect()
    }

    pub(super) fn journal_of(&self, attempt: AttemptId) -> impl Iterator<Item = &(JournalEntry, Timestamp)> {
        self.journal.range((attempt, 0)..=(attempt, u64::MAX)).map(|(_, entry)| entry)
    }

    pub(super) fn checkpoints_of(&self, task: TaskId) -> Vec<Checkpoint> {
        let mut checkpoints: Vec<_> = self.checkpoints.values().filter(|checkpoint| checkpoint.task == task).cloned().collect();
        checkpoints.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        checkpoints
    }

    pub(super) fn questions_of(&self, task: TaskId) -> Vec<Question> {
        let mut questions: Vec<_> = self.questions.values().filter(|question| question.task == task).cloned().collect();
        questions.sort_by_key(|question| std::cmp::Reverse((question.created_at, question.id)));
        questions
    }

    pub(super) fn remarks_of(&self, task: TaskId) -> Vec<Remark> {
        let mut remarks: Vec<_> = self.remarks.values().filter(|remark| remark.task == task).cloned().collect();
        remarks.sort_by_key(|remark| (remark.created_at, remark.id));
        remarks
    }

    pub(super) fn newest_event(&self) -> u64 {
        self.events.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    pub(super) fn filtered_events(&self, filter: EventFilter) -> Vec<Event> {
        let later = self.events.range(filter.after.saturating_add(1)..).map(|(_, event)| event);
        later
            .filter(|event| filter.task.is_none() || event.event.task == filter.task)
            .take(filter.limit as usize)
            .cloned()
            .collect()
    }

    pub(super) fn ledger(&self, filter: LedgerFilter) -> impl Iterator<Item = &ModelCall> {
        let fits = move |call: &&ModelCall| {
            call.at >= filter.since
                && filter.task.is_none_or(|task| call.task == Some(task))
                && filter.key.is_none_or(|key| call.key == Some(key))
        };
        self.calls.values().filter(fits)
    }

    pub(super) fn ledger_spent(&self, filter: LedgerFilter) -> Spent {
        let used = self.ledger(filter).map(|call| Spent { money: call.usage.cost, tokens: call.usage.total_tokens() });
        used.fold(Spent::default(), Spent::plus)
    }

    pub(super) fn spent_since(&self, payer: Payer, since: Timestamp) -> (Money, u64) {
        let pays = |owner: OwnerId, project: ProjectId| match payer {
            Payer::Owner(payer) => owner == payer,
            Payer::Project(payer) => project == payer,
        };
        // What the turns of an external agent spend is in the ledger as it is spent, and in its steps for the task alone.
        let ledgered =
            |task: TaskId| self.tasks.get(&task).is_some_and(|row| matches!(row.record.spec.work, TaskWork::External(_)));
        let paid = |task: TaskId| self.tasks.get(&task).is_some_and(|row| pays(row.record.owner, row.record.project));
        let counts = |task: TaskId| paid(task) && !ledgered(task);
        let steps = self.steps.values().filter(|record| record.committed_at >= since && counts(record.step.task));
        let committed = steps.map(|record| (record.step.spend.money, record.step.spend.tokens));
        let lost = self.lost_spend.values().filter(|lost| lost.at >= since && counts(lost.task));
        let lost = lost.map(|lost| (lost.money, lost.tokens));
        let journalled = self.journal.values().filter(|(entry, at)| *at >= since && counts(entry.task));
        let unfinished = charge::total(journalled.filter_map(|(entry, _)| Charge::of(&entry.body)));
        let served = self.calls.values().filter(|call| call.key.is_some() || call.task.is_none());
        let served = served.filter(|call| call.at >= since && pays(call.owner, call.project));
        committed
            .chain(lost)
            .chain(served.map(|call| (call.usage.cost, call.usage.total_tokens())))
            .chain([unfinished])
            .fold((Money::ZERO, 0), |(money, tokens), (more_money, more_tokens)| (money + more_money, tokens + more_tokens))
    }
}
