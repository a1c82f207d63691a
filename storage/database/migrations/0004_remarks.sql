CREATE TABLE remarks (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES distributed_tasks (id),
    owner_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    text TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    step_id TEXT,
    version BIGINT NOT NULL
);
CREATE INDEX remarks_by_task ON remarks (task_id, created_at);
