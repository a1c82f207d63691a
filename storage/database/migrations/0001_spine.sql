-- The tables of the first version. The same text for SQLite and PostgreSQL: ids and JSON are TEXT,
-- instants are microseconds since 1970-01-01 UTC, money is in millionths of a US dollar.

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    UNIQUE (owner_id, name)
);

INSERT INTO users (id, name, created_at, version) VALUES ('00000000-0000-0000-0000-000000000001', 'local', 0, 1);
INSERT INTO projects (id, owner_id, name, created_at, version)
VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'default', 0, 1);

CREATE TABLE distributed_tasks (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    priority BIGINT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    attempt_id TEXT NOT NULL,
    head TEXT,
    steps BIGINT NOT NULL,
    node_id TEXT,
    worker_id TEXT,
    retries BIGINT NOT NULL,
    not_before BIGINT,
    budget_money BIGINT,
    budget_tokens BIGINT,
    spent_money BIGINT NOT NULL,
    spent_tokens BIGINT NOT NULL,
    event_sequence BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT,
    version BIGINT NOT NULL,
    -- Last, and never rewritten: what was asked for. The present budget is in the columns above.
    spec TEXT NOT NULL
);
CREATE INDEX distributed_tasks_by_status ON distributed_tasks (status);
CREATE INDEX distributed_tasks_by_age ON distributed_tasks (created_at, id);

CREATE TABLE dependencies (
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    depends_on TEXT NOT NULL REFERENCES distributed_tasks (id),
    PRIMARY KEY (depends_on, task_id)
);
CREATE INDEX dependencies_by_task ON dependencies (task_id);

CREATE TABLE idempotency_keys (
    owner_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (owner_id, idempotency_key)
);

CREATE TABLE steps (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL,
    parent_id TEXT REFERENCES steps (id),
    ordinal BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    summary TEXT NOT NULL,
    tree TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    store_sequence BIGINT NOT NULL,
    files_changed BIGINT NOT NULL,
    model_calls BIGINT NOT NULL,
    uncertain_calls BIGINT NOT NULL,
    money BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    worker_id TEXT,
    started_at BIGINT NOT NULL,
    committed_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    -- Last, so that listings do not touch them. Messages are whole: content above 64 KiB is not yet
    -- moved out into objects, so a step is limited by what the database takes in one value (1 GB).
    detail TEXT NOT NULL,
    messages TEXT NOT NULL
);
CREATE INDEX steps_by_task ON steps (task_id, committed_at);
CREATE INDEX steps_by_owner ON steps (owner_id, committed_at);
CREATE INDEX steps_by_store_sequence ON steps (store_sequence);

CREATE TABLE journal (
    attempt_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    -- What the entry does to the spend of its call; NULL where it costs nothing.
    charge TEXT,
    call_key TEXT,
    money BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (attempt_id, sequence)
);
CREATE INDEX journal_by_owner ON journal (owner_id);

-- What a journal had spent that was dropped before its step was committed.
CREATE TABLE lost_spend (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    money BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX lost_spend_by_owner ON lost_spend (owner_id, created_at);

CREATE TABLE task_checkpoints (
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    name TEXT NOT NULL,
    step_id TEXT NOT NULL REFERENCES steps (id),
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (task_id, name)
);
CREATE INDEX task_checkpoints_by_step ON task_checkpoints (step_id);

CREATE TABLE questions (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    text TEXT NOT NULL,
    choices TEXT NOT NULL,
    answer TEXT,
    created_at BIGINT NOT NULL,
    answered_at BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX questions_by_task ON questions (task_id);

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    target TEXT NOT NULL,
    slots BIGINT NOT NULL,
    lifecycle TEXT NOT NULL,
    status TEXT NOT NULL,
    health TEXT NOT NULL,
    facts TEXT,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    version BIGINT NOT NULL
);

-- The sequence is given by the writer. On SQLite it counts. On PostgreSQL it is the transaction's
-- number with a counter below it, so that it grows in the order in which events become readable.
CREATE TABLE events (
    sequence BIGINT PRIMARY KEY,
    id TEXT NOT NULL,
    task_id TEXT,
    task_sequence BIGINT NOT NULL,
    worker_id TEXT,
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    schema_version BIGINT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    actor TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX events_by_task ON events (task_id, sequence);

-- Added to PostgreSQL's transaction numbers, which start again from nothing when a dump is restored.
CREATE TABLE event_base (base BIGINT NOT NULL);
INSERT INTO event_base (base) VALUES (0);

-- What has to be told outside, written with the change it tells of. Channels empty it.
CREATE TABLE outbox (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    event_sequence BIGINT NOT NULL,
    topic TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    sent_at BIGINT
);
CREATE INDEX outbox_unsent ON outbox (sent_at, not_before);

CREATE TABLE node_leases (
    node_id TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL
);
