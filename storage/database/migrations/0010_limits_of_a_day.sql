-- Questions may be about a limit of the day, which a program before this cannot read. A task that waits for the next day asks instead.
UPDATE distributed_tasks SET not_before = NULL WHERE status = 'pending' AND substr(reason, 1, 26) = 'waiting for the next day: ';
