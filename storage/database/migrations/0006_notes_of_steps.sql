-- What a listing says of a step beside its narrow columns, as JSON: files it does not carry or caught while they changed, artifacts. NULL
-- where there is none; of steps that were committed before, `detail` alone has it.
ALTER TABLE steps ADD COLUMN notes TEXT;
