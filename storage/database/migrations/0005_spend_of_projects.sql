ALTER TABLE model_calls ADD COLUMN project_id TEXT NOT NULL DEFAULT '00000000-0000-0000-0000-000000000001';
-- 1 where nobody knows yet what the call used: its end takes the place of what stands there.
ALTER TABLE model_calls ADD COLUMN uncertain BIGINT NOT NULL DEFAULT 0;
CREATE INDEX model_calls_by_project ON model_calls (project_id, ended_at);
CREATE INDEX steps_by_project ON steps (project_id, committed_at);
CREATE INDEX journal_by_project ON journal (project_id);
CREATE INDEX lost_spend_by_project ON lost_spend (project_id, created_at);
