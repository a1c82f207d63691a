//! The longer statements of a write, the same for both databases.

use std::sync::OnceLock;

use super::columns::{needed_column, task_columns};

/// The one statement that changes a task: what its WHERE says is what fences.
pub(super) const CHANGE_TASK: &str = concat!(
    "UPDATE distributed_tasks SET \
        epoch = epoch + $6, \
        status = COALESCE($7, status), \
        reason = COALESCE($8, reason), \
        hint = CASE WHEN $8 IS NULL THEN hint ELSE $26 END, \
        node_id = CASE WHEN $9 = 1 THEN $10 ELSE node_id END, \
        worker_id = CASE WHEN $9 = 1 THEN $11 ELSE worker_id END, \
        head = COALESCE($12, head), \
        steps = COALESCE($13, steps), \
        attempt_id = COALESCE($27, attempt_id), \
        retries = COALESCE($14, retries), \
        not_before = CASE WHEN $15 = 1 THEN $16 ELSE not_before END, \
        budget_money = CASE WHEN $17 = 1 THEN $18 ELSE budget_money END, \
        budget_tokens = CASE WHEN $17 = 1 THEN $19 ELSE budget_tokens END, \
        spent_money = spent_money + $20, \
        spent_tokens = spent_tokens + $21, \
        finished_at = CASE WHEN $22 = 1 THEN $23 ELSE finished_at END, \
        event_sequence = event_sequence + $24, \
        updated_at = $25, \
        version = version + 1 \
     WHERE id = $1 \
        AND epoch = COALESCE($2, epoch) \
        AND ($3 = 0 OR head IS NOT DISTINCT FROM $4) \
        AND $5 LIKE '%,' || status || ',%' \
        AND ($28 = 0 OR NOT EXISTS (SELECT 1 FROM remarks r WHERE r.task_id = $1 AND r.step_id IS NULL)) \
     RETURNING ",
    task_columns!(),
    ", ",
    needed_column!()
);

/// Selecting from the task is what fences: no row at another epoch, so nothing to insert.
pub(super) const APPEND_JOURNAL: &str = "INSERT INTO journal (attempt_id, sequence, task_id, owner_id, project_id, ordinal, epoch, charge, \
     call_key, money, tokens, created_at, body) \
     SELECT $1, $2, id, owner_id, project_id, $5, epoch, $6, $7, $8, $9, $10, $11 FROM distributed_tasks WHERE id = $3 AND epoch = $4 \
     ON CONFLICT (attempt_id, sequence) DO NOTHING";

/// How a statement for several rows writes its placeholders, in the order in which values are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholders {
    /// `$1`, `$2` and so on.
    Numbered,
    /// `?`. The driver of SQLite looks a numbered one up by its name, in a list as long as there are placeholders.
    Bare,
}

/// One statement for several rows, in a few sizes, so that each is prepared once. Placeholders are written as `?`.
pub(super) struct Batch {
    before: &'static str,
    row: &'static str,
    between: &'static str,
    after: &'static str,
    numbered: Sizes,
    bare: Sizes,
}

type Sizes = [OnceLock<&'static str>; Batch::SIZES];

impl Batch {
    /// 1, 2, 4 … 64 rows.
    const SIZES: usize = 7;

    const fn new(before: &'static str, row: &'static str, between: &'static str, after: &'static str) -> Self {
        let none: Sizes = [const { OnceLock::new() }; Self::SIZES];
        Self { before, row, between, after, numbered: none, bare: [const { OnceLock::new() }; Self::SIZES] }
    }

    /// How many of `rows` the next statement takes.
    pub fn of(rows: usize) -> usize {
        1 << rows.ilog2().min(Self::SIZES as u32 - 1)
    }

    /// The statement of a size that [`of`](Self::of) gave.
    pub fn get(&self, placeholders: Placeholders, rows: usize) -> &'static str {
        let (sizes, named): (_, fn(String) -> String) = match placeholders {
            Placeholders::Numbered => (&self.numbered, numbered),
            Placeholders::Bare => (&self.bare, std::convert::identity),
        };
        sizes[rows.ilog2() as usize].get_or_init(|| String::leak(named(self.text(rows))))
    }

    fn text(&self, rows: usize) -> String {
        format!("{}{}{}", self.before, vec![self.row; rows].join(self.between), self.after)
    }
}

/// With `$1`, `$2` and so on for every `?`.
fn numbered(text: String) -> String {
    let mut parts = text.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.zip(1..).fold(first, |text, (part, place)| format!("{text}${place}{part}"))
}

/// Events, each owned like the task it is about.
pub(super) static INSERT_EVENTS: Batch = Batch::new(
    "INSERT INTO events (sequence, id, task_id, task_sequence, worker_id, owner_id, project_id, schema_version, kind, severity, \
        actor, message, created_at, detail) \
     SELECT v.column1, v.column2, v.column3, v.column4, v.column5, COALESCE(t.owner_id, v.column6), \
        COALESCE(t.project_id, v.column7), v.column8, v.column9, v.column10, v.column11, v.column12, v.column13, v.column14 \
     FROM (VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ", ",
    ") v LEFT JOIN distributed_tasks t ON t.id = v.column3",
);

/// Steps; none of those that exist.
pub(super) static INSERT_STEPS: Batch = Batch::new(
    "INSERT INTO steps (id, task_id, owner_id, project_id, attempt_id, parent_id, ordinal, epoch, outcome, summary, tree, snapshot, \
        store_sequence, files_changed, model_calls, uncertain_calls, money, tokens, worker_id, started_at, committed_at, version, \
        detail, messages, long_messages, notes) \
     VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)",
    ", ",
    " ON CONFLICT (id) DO NOTHING",
);

/// Journals, each up to and with an ordinal.
pub(super) static DROP_JOURNALS: Batch = Batch::new("DELETE FROM journal WHERE ", "(attempt_id = ? AND ordinal <= ?)", " OR ", "");

/// A worker, new or changed.
pub(super) const PUT_WORKER: &str = "INSERT INTO workers (id, owner_id, name, target, slots, lifecycle, status, health, facts, reason, created_at, \
     updated_at, last_seen_at, version) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
     ON CONFLICT (id) DO UPDATE SET name = excluded.name, target = excluded.target, slots = excluded.slots, \
        lifecycle = excluded.lifecycle, status = excluded.status, health = excluded.health, facts = excluded.facts, \
        reason = excluded.reason, created_at = excluded.created_at, updated_at = excluded.updated_at, \
        last_seen_at = excluded.last_seen_at, version = excluded.version";

/// Whether $2 is on the line to $1. The walk ends where it is found.
pub(super) const ON_LINE: &str = "WITH RECURSIVE line (id, parent_id) AS (\
        SELECT id, parent_id FROM steps WHERE id = $1 \
        UNION ALL SELECT s.id, s.parent_id FROM steps s JOIN line l ON s.id = l.parent_id WHERE l.id <> $2) \
     SELECT id FROM line WHERE id = $2";
