//! The longer statements of a write, the same for both databases.

use std::sync::OnceLock;

use super::columns::task_columns;

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
     RETURNING ",
    task_columns!()
);

/// A step; nothing where there is one of that id.
pub(super) const INSERT_STEP: &str = "INSERT INTO steps (id, task_id, owner_id, project_id, attempt_id, parent_id, ordinal, epoch, outcome, \
     summary, tree, snapshot, store_sequence, files_changed, model_calls, uncertain_calls, money, tokens, worker_id, started_at, \
     committed_at, version, detail, messages, long_messages, notes) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, 1, $22, $23, $24, $25) \
     ON CONFLICT (id) DO NOTHING";

/// Selecting from the task is what fences: no row at another epoch, so nothing to insert.
pub(super) const APPEND_JOURNAL: &str = "INSERT INTO journal (attempt_id, sequence, task_id, owner_id, project_id, ordinal, epoch, charge, \
     call_key, money, tokens, created_at, body) \
     SELECT $1, $2, id, owner_id, project_id, $5, epoch, $6, $7, $8, $9, $10, $11 FROM distributed_tasks WHERE id = $3 AND epoch = $4 \
     ON CONFLICT (attempt_id, sequence) DO NOTHING";

/// One statement for several rows, in a few sizes, so that each is prepared once.
pub(super) struct Batch([OnceLock<&'static str>; Batch::SIZES], fn(usize) -> String);

impl Batch {
    /// 1, 2, 4 … 64 rows.
    const SIZES: usize = 7;

    const fn new(sql: fn(usize) -> String) -> Self {
        Self([const { OnceLock::new() }; Self::SIZES], sql)
    }

    /// How many of `rows` the next statement takes.
    pub fn of(rows: usize) -> usize {
        1 << rows.ilog2().min(Self::SIZES as u32 - 1)
    }

    /// The statement of a size that [`of`](Self::of) gave.
    pub fn get(&self, rows: usize) -> &'static str {
        self.0[rows.ilog2() as usize].get_or_init(|| String::leak((self.1)(rows)))
    }
}

/// Events, each owned like the task it is about.
pub(super) static INSERT_EVENTS: Batch = Batch::new(|rows| {
    let row = |row: usize| {
        let p = |place: usize| format!("${}", 14 * row + place);
        let of_task = |column: &str, otherwise: usize| {
            format!("COALESCE((SELECT {column} FROM distributed_tasks WHERE id = {}), {})", p(3), p(otherwise))
        };
        let rest: Vec<String> = (8..=14).map(p).collect();
        let [owner, project] = [of_task("owner_id", 6), of_task("project_id", 7)];
        format!("({}, {}, {}, {}, {}, {owner}, {project}, {})", p(1), p(2), p(3), p(4), p(5), rest.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO events (sequence, id, task_id, task_sequence, worker_id, owner_id, project_id, schema_version, \
         kind, severity, actor, message, created_at, detail) VALUES {}",
        rows.join(", ")
    )
});

/// Journals, each up to and with an ordinal.
pub(super) static DROP_JOURNALS: Batch = Batch::new(|rows| {
    let row = |row: usize| format!("(attempt_id = ${} AND ordinal <= ${})", 2 * row + 1, 2 * row + 2);
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("DELETE FROM journal WHERE {}", rows.join(" OR "))
});

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
