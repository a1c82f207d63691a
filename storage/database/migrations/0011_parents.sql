-- The task that made this one, as `spec` says it: what a task's own tasks take of its budget is read by it. `spec` ends with the parent,
-- and with the group where the task has one. One that was rebased has the parent of what it was made from there, and is nobody's.
ALTER TABLE distributed_tasks ADD COLUMN parent_id TEXT;
UPDATE distributed_tasks SET parent_id = substr(spec, length(spec) - 37, 36)
WHERE length(spec) > 48 AND substr(spec, length(spec) - 47, 10) = '"parent":"' AND spec NOT LIKE '%"fork_files":"%';
UPDATE distributed_tasks SET parent_id = substr(spec, length(spec) - 84, 36)
WHERE length(spec) > 95 AND substr(spec, length(spec) - 94, 10) = '"parent":"';
CREATE INDEX distributed_tasks_by_parent ON distributed_tasks (parent_id) WHERE parent_id IS NOT NULL;
