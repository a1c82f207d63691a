//! Queries. Listings leave the wide columns alone.

use std::collections::{BTreeMap, HashSet};

use helix_protocol::{
    AttemptId, Checkpoint, Event, GatewayKey, JournalEntry, ModelCall, Money, ObjectId, Payer, Question, QuestionId, RecordsId,
    Remark, Spent, StepId, StepRecord, StepSummary, TaskId, TaskRecord, TaskStatus, Timestamp, WorkerRecord,
};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyPool, query};

use super::columns::{self, big, count, get, parsed, step_columns, step_content, task_columns};
use super::error::failure;
use super::rows::charge;
use crate::{Descendant, EventFilter, LedgerFilter, RecordError, TaskFilter, charge, named};

type Result<T> = std::result::Result<T, RecordError>;

// A line has its order from its parents: a failed or unfinished step has the number of another.
macro_rules! line {
    () => {
        "WITH RECURSIVE line (id, parent_id, depth) AS (\
            SELECT id, parent_id, 0 FROM steps WHERE id = $1 \
            UNION ALL SELECT s.id, s.parent_id, l.depth + 1 FROM steps s JOIN line l ON s.id = l.parent_id) "
    };
}

// What is not filtered by is NULL, and a database wants to know of which type.
macro_rules! ledger {
    () => {
        " FROM model_calls WHERE ended_at >= $1 AND (CAST($2 AS TEXT) IS NULL OR task_id = $2) \
         AND (CAST($3 AS TEXT) IS NULL OR key_id = $3)"
    };
}

async fn all(pool: &AnyPool, query: Query<'_, Any, AnyArguments>) -> Result<Vec<AnyRow>> {
    query.fetch_all(pool).await.map_err(failure)
}

pub(super) async fn task(pool: &AnyPool, id: TaskId) -> Result<Option<TaskRecord>> {
    const SQL: &str = concat!("SELECT ", task_columns!(), ", spec FROM distributed_tasks WHERE id = $1");
    let row = query(SQL).bind(id.to_string()).fetch_optional(pool).await.map_err(failure)?;
    row.map(|row| columns::task_with_spec(&row)).transpose()
}

pub(super) async fn tasks(pool: &AnyPool, filter: TaskFilter) -> Result<Vec<TaskRecord>> {
    const SQL: &str = concat!(
        "SELECT ",
        task_columns!(),
        ", spec FROM distributed_tasks WHERE status IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ORDER BY created_at DESC, id DESC LIMIT $11"
    );
    // Ten places for at most ten states; what is left over repeats the first.
    let wanted = if filter.status.is_empty() { &TaskStatus::ALL[..] } else { &filter.status[..] };
    let places = (0..TaskStatus::ALL.len()).map(|place| wanted.get(place).unwrap_or(&wanted[0]).as_str());
    let select = places.fold(query(SQL), |select, status| select.bind(status));
    let rows = all(pool, select.bind(filter.limit.map_or(i64::MAX, i64::from))).await?;
    rows.iter().map(columns::task_with_spec).collect()
}

pub(super) async fn tasks_like(pool: &AnyPool, digits: &str) -> Result<Vec<TaskId>> {
    // Every id is looked at, in an index that holds nothing else.
    let select = query(
        "SELECT id FROM distributed_tasks WHERE REPLACE(id, '-', '') LIKE '%' || $1 OR REPLACE(id, '-', '') LIKE $1 || '%' \
         ORDER BY created_at DESC, id DESC",
    );
    all(pool, select.bind(digits)).await?.iter().map(|row| parsed(row, "id")).collect()
}

pub(super) async fn dependents(pool: &AnyPool, task: TaskId) -> Result<Vec<TaskRecord>> {
    const SQL: &str = concat!(
        "SELECT ",
        task_columns!(),
        ", spec FROM distributed_tasks WHERE id IN (SELECT task_id FROM dependencies WHERE depends_on = $1) ORDER BY id"
    );
    all(pool, query(SQL).bind(task.to_string())).await?.iter().map(columns::task_with_spec).collect()
}

pub(super) async fn descendants(pool: &AnyPool, task: TaskId) -> Result<Vec<Descendant>> {
    // One row for each charge of a journal, and one of each task that has none. What an external agent's turn spends is in the ledger
    // before it is its task's.
    const SQL: &str = "WITH RECURSIVE below (id) AS (\
            SELECT id FROM distributed_tasks WHERE parent_id = $1 \
            UNION SELECT t.id FROM distributed_tasks t JOIN below b ON t.parent_id = b.id) \
         SELECT t.id, t.parent_id, t.status, t.budget_money, t.budget_tokens, t.spent_money, t.spent_tokens, \
            j.charge, j.call_key, j.money, j.tokens, \
            CAST(COALESCE(CASE WHEN t.kind = 'external' THEN \
                (SELECT SUM(m.money) FROM model_calls m WHERE m.task_id = t.id) END, 0) AS BIGINT) AS ledger_money, \
            CAST(COALESCE(CASE WHEN t.kind = 'external' THEN \
                (SELECT SUM(m.tokens) FROM model_calls m WHERE m.task_id = t.id) END, 0) AS BIGINT) AS ledger_tokens \
         FROM below b JOIN distributed_tasks t ON t.id = b.id \
         LEFT JOIN journal j ON j.attempt_id = t.attempt_id AND j.charge IS NOT NULL \
         ORDER BY t.id, j.sequence";
    let rows = all(pool, query(SQL).bind(task.to_string())).await?;
    let mut below = Vec::new();
    for of_one in rows.chunk_by(|a, b| get::<&str>(a, "id").ok() == get::<&str>(b, "id").ok()) {
        below.push(columns::descendant(&of_one[0], charges(of_one)?)?);
    }
    Ok(below)
}

/// What the journal adds to what a task has spent.
fn charges(rows: &[AnyRow]) -> Result<Spent> {
    let mut charges = Vec::new();
    for row in rows {
        if get::<Option<&str>>(row, "charge")?.is_some() {
            charges.push(charge(row)?);
        }
    }
    let (money, tokens) = charge::total(charges);
    Ok(Spent { money, tokens })
}

pub(super) async fn step(pool: &AnyPool, id: StepId) -> Result<Option<StepRecord>> {
    const SQL: &str = concat!("SELECT ", step_columns!(), ", ", step_content!(), " FROM steps s WHERE s.id = $1");
    let row = query(SQL).bind(id.to_string()).fetch_optional(pool).await.map_err(failure)?;
    row.map(|row| columns::step(&row)).transpose()
}

pub(super) async fn lineage(pool: &AnyPool, head: StepId) -> Result<Vec<StepSummary>> {
    const STEPS: &str =
        concat!(line!(), "SELECT ", step_columns!(), " FROM line l JOIN steps s ON s.id = l.id ORDER BY l.depth DESC");
    const NAMES: &str = concat!(
        line!(),
        "SELECT c.step_id, c.name FROM line l JOIN task_checkpoints c ON c.step_id = l.id ORDER BY c.created_at, c.name"
    );
    let steps = all(pool, query(STEPS).bind(head.to_string())).await?;
    let names = all(pool, query(NAMES).bind(head.to_string())).await?;
    summaries(&steps, &names)
}

pub(super) async fn steps(pool: &AnyPool, task: TaskId) -> Result<Vec<StepSummary>> {
    const STEPS: &str =
        concat!("SELECT ", step_columns!(), " FROM steps s WHERE s.task_id = $1 ORDER BY s.committed_at, s.ordinal, s.id");
    const NAMES: &str = "SELECT c.step_id, c.name FROM task_checkpoints c JOIN steps s ON s.id = c.step_id \
         WHERE s.task_id = $1 ORDER BY c.created_at, c.name";
    let steps = all(pool, query(STEPS).bind(task.to_string())).await?;
    let names = all(pool, query(NAMES).bind(task.to_string())).await?;
    summaries(&steps, &names)
}

fn summaries(steps: &[AnyRow], names: &[AnyRow]) -> Result<Vec<StepSummary>> {
    let mut named: BTreeMap<StepId, Vec<String>> = BTreeMap::new();
    for row in names {
        named.entry(parsed(row, "step_id")?).or_default().push(get(row, "name")?);
    }
    let with_names = |row| {
        let mut summary = columns::summary(row)?;
        summary.checkpoints = named.remove(&summary.id).unwrap_or_default();
        Ok(summary)
    };
    steps.iter().map(with_names).collect()
}

pub(super) async fn conversation(pool: &AnyPool, head: StepId) -> Result<Vec<StepRecord>> {
    const SQL: &str = concat!(
        line!(),
        "SELECT ",
        step_columns!(),
        ", ",
        step_content!(),
        " FROM line l JOIN steps s ON s.id = l.id ORDER BY l.depth DESC"
    );
    all(pool, query(SQL).bind(head.to_string())).await?.iter().map(columns::step).collect()
}

pub(super) async fn journal(pool: &AnyPool, attempt: AttemptId, above_ordinal: u64) -> Result<Vec<JournalEntry>> {
    let select = query(
        "SELECT task_id, attempt_id, sequence, ordinal, epoch, body FROM journal \
         WHERE attempt_id = $1 AND ordinal > $2 ORDER BY sequence",
    );
    all(pool, select.bind(attempt.to_string()).bind(big(above_ordinal))).await?.iter().map(columns::journal_entry).collect()
}

pub(super) async fn checkpoints(pool: &AnyPool, task: TaskId) -> Result<Vec<Checkpoint>> {
    let select =
        query("SELECT task_id, step_id, name, created_at FROM task_checkpoints WHERE task_id = $1 ORDER BY created_at, name");
    all(pool, select.bind(task.to_string())).await?.iter().map(columns::checkpoint).collect()
}

pub(super) async fn question(pool: &AnyPool, id: QuestionId) -> Result<Option<Question>> {
    let select = query("SELECT * FROM questions WHERE id = $1");
    all(pool, select.bind(id.to_string())).await?.first().map(columns::question).transpose()
}

pub(super) async fn questions(pool: &AnyPool, task: TaskId) -> Result<Vec<Question>> {
    let select = query("SELECT * FROM questions WHERE task_id = $1 ORDER BY created_at DESC, id DESC");
    all(pool, select.bind(task.to_string())).await?.iter().map(columns::question).collect()
}

pub(super) async fn remarks(pool: &AnyPool, task: TaskId) -> Result<Vec<Remark>> {
    let select = query("SELECT * FROM remarks WHERE task_id = $1 ORDER BY created_at, id");
    all(pool, select.bind(task.to_string())).await?.iter().map(columns::remark).collect()
}

pub(super) async fn workers(pool: &AnyPool) -> Result<Vec<WorkerRecord>> {
    let mut workers: Vec<_> =
        all(pool, query("SELECT * FROM workers")).await?.iter().map(columns::worker).collect::<Result<_>>()?;
    // Sorted here, because a database sorts text as its locale says.
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(workers)
}

pub(super) async fn events(pool: &AnyPool, filter: EventFilter) -> Result<Vec<Event>> {
    let select = query("SELECT * FROM events WHERE sequence > $1 AND ($2 IS NULL OR task_id = $2) ORDER BY sequence LIMIT $3");
    let select = select.bind(big(filter.after)).bind(filter.task.map(|task| task.to_string())).bind(i64::from(filter.limit));
    all(pool, select).await?.iter().map(columns::event).collect()
}

/// True of rows whose task's calls are in the ledger as they are made, and in its steps for the task alone.
macro_rules! ledgered {
    ($task:literal) => {
        concat!("EXISTS (SELECT 1 FROM distributed_tasks t WHERE t.id = ", $task, " AND t.kind = 'external')")
    };
}

/// What the journals of a payer's unfinished steps say, where this column is the payer.
macro_rules! open_spend {
    ($payer:literal) => {
        concat!(
            "SELECT charge, call_key, money, tokens FROM journal WHERE ",
            $payer,
            " = $1 AND created_at >= $2 AND charge IS NOT NULL AND NOT ",
            ledgered!("journal.task_id"),
            " ORDER BY attempt_id, sequence"
        )
    };
}

/// What a payer has spent for good: its steps, dropped journals, and the calls that belong to no step of ours.
macro_rules! settled_spend {
    ($payer:literal) => {
        concat!(
            "SELECT CAST(COALESCE(SUM(money), 0) AS BIGINT) AS money, CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS tokens FROM (\
             SELECT money, tokens FROM steps WHERE ",
            $payer,
            " = $1 AND committed_at >= $2 AND NOT ",
            ledgered!("steps.task_id"),
            " UNION ALL SELECT money, tokens FROM lost_spend WHERE ",
            $payer,
            " = $1 AND created_at >= $2 AND NOT ",
            ledgered!("lost_spend.task_id"),
            " UNION ALL SELECT money, tokens FROM model_calls WHERE ",
            $payer,
            " = $1 AND ended_at >= $2 AND (key_id IS NOT NULL OR task_id IS NULL)) spent"
        )
    };
}

pub(super) async fn spent_since(pool: &AnyPool, payer: Payer, since: Timestamp) -> Result<(Money, u64)> {
    let (open, sums, id) = match payer {
        Payer::Owner(owner) => (open_spend!("owner_id"), settled_spend!("owner_id"), owner.to_string()),
        Payer::Project(project) => (open_spend!("project_id"), settled_spend!("project_id"), project.to_string()),
    };
    // The journal first: a step committed in between is then counted twice for a moment, never not at all.
    let open = all(pool, query(open).bind(id.clone()).bind(since.0)).await?;
    let sums = query(sums).bind(id).bind(since.0).fetch_one(pool).await.map_err(failure)?;
    let (money, tokens) = charge::total(open.iter().map(charge).collect::<Result<Vec<_>>>()?);
    Ok((Money(get(&sums, "money")?) + money, count(&sums, "tokens")? + tokens))
}

pub(super) async fn newest_event(pool: &AnyPool) -> Result<u64> {
    let select = query("SELECT COALESCE(MAX(sequence), 0) AS newest FROM events");
    count(&select.fetch_one(pool).await.map_err(failure)?, "newest")
}

pub(super) async fn gateway_keys(pool: &AnyPool) -> Result<Vec<GatewayKey>> {
    let keys = all(pool, query("SELECT body FROM gateway_keys ORDER BY created_at, id")).await?;
    keys.iter().map(|row| columns::from_json(row, "body")).collect()
}

pub(super) async fn ledger(pool: &AnyPool, filter: LedgerFilter) -> Result<Vec<ModelCall>> {
    const SQL: &str = concat!("SELECT body", ledger!(), " ORDER BY ended_at DESC, id DESC LIMIT $4");
    let select = filtered(query(SQL), filter).bind(i64::from(filter.limit));
    all(pool, select).await?.iter().map(|row| columns::from_json(row, "body")).collect()
}

pub(super) async fn ledger_spent(pool: &AnyPool, filter: LedgerFilter) -> Result<Spent> {
    const SQL: &str = concat!(
        "SELECT CAST(COALESCE(SUM(money), 0) AS BIGINT) AS money, CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS tokens",
        ledger!()
    );
    let sums = filtered(query(SQL), filter).fetch_one(pool).await.map_err(failure)?;
    Ok(Spent { money: Money(get(&sums, "money")?), tokens: count(&sums, "tokens")? })
}

fn filtered<'q>(query: Query<'q, Any, AnyArguments>, filter: LedgerFilter) -> Query<'q, Any, AnyArguments> {
    let (task, key) = (filter.task.map(|task| task.to_string()), filter.key.map(|key| key.to_string()));
    query.bind(filter.since.0).bind(task).bind(key)
}

pub(super) async fn acknowledged_store_sequence(pool: &AnyPool) -> Result<u64> {
    let select = query("SELECT COALESCE(MAX(store_sequence), 0) AS acknowledged FROM steps");
    count(&select.fetch_one(pool).await.map_err(failure)?, "acknowledged")
}

pub(super) async fn id(pool: &AnyPool) -> Result<Option<RecordsId>> {
    let row = query("SELECT id FROM records_id").fetch_optional(pool).await.map_err(failure)?;
    row.map(|row| parsed(&row, "id")).transpose()
}

/// Rows read at once: a row may be long.
const AT_ONCE: i64 = 256;

pub(super) async fn named_content(pool: &AnyPool) -> Result<HashSet<ObjectId>> {
    const TASKS: &str = "SELECT id, spec FROM distributed_tasks WHERE id > $1 ORDER BY id LIMIT $2";
    const STEPS: &str = "SELECT id, tree, snapshot, detail, messages, long_messages FROM steps WHERE id > $1 ORDER BY id LIMIT $2";
    const ATTEMPTS: &str = "SELECT DISTINCT attempt_id AS id FROM journal WHERE attempt_id > $1 ORDER BY attempt_id LIMIT $2";
    let mut named = HashSet::new();
    each_page(pool, TASKS, |row| name(row, &["spec"], &mut named)).await?;
    each_page(pool, STEPS, |row| name(row, &["tree", "snapshot", "detail", "messages", "long_messages"], &mut named)).await?;
    let mut attempts: Vec<String> = Vec::new();
    each_page(pool, ATTEMPTS, |row| {
        attempts.push(get(row, "id")?);
        Ok(())
    })
    .await?;
    for attempt in attempts {
        let bodies = all(pool, query("SELECT body FROM journal WHERE attempt_id = $1").bind(attempt)).await?;
        bodies.iter().try_for_each(|row| name(row, &["body"], &mut named))?;
    }
    Ok(named)
}

fn name(row: &AnyRow, columns: &[&str], named: &mut HashSet<ObjectId>) -> Result<()> {
    for column in columns {
        if let Some(text) = get::<Option<&str>>(row, column)? {
            named::collect(text, named);
        }
    }
    Ok(())
}

/// Gives every row of a query that is bound to the id of the last row and to how many to read.
async fn each_page(pool: &AnyPool, sql: &'static str, mut give: impl FnMut(&AnyRow) -> Result<()>) -> Result<()> {
    let mut after = String::new();
    loop {
        let rows = all(pool, query(sql).bind(after).bind(AT_ONCE)).await?;
        rows.iter().try_for_each(&mut give)?;
        match rows.last() {
            Some(last) => after = get(last, "id")?,
            None => return Ok(()),
        }
    }
}
