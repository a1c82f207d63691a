-- What to do about the reason that a task stands where it does; goes with `reason`, and is empty where nothing is to be done.
ALTER TABLE distributed_tasks ADD COLUMN hint TEXT NOT NULL DEFAULT '';
