CREATE TABLE gateway_keys (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    version BIGINT NOT NULL
);

-- What a call used is in columns, so that a sum reads no bodies.
CREATE TABLE model_calls (
    id TEXT PRIMARY KEY,
    ended_at BIGINT NOT NULL,
    owner_id TEXT NOT NULL,
    task_id TEXT,
    key_id TEXT,
    money BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX model_calls_by_time ON model_calls (ended_at);
CREATE INDEX model_calls_by_task ON model_calls (task_id, ended_at);
CREATE INDEX model_calls_by_key ON model_calls (key_id, ended_at);
CREATE INDEX model_calls_by_owner ON model_calls (owner_id, ended_at);
