-- Which records these are. A node's data folder notes it: what another database does not name must not be collected.
CREATE TABLE records_id (only_row BIGINT PRIMARY KEY, id TEXT NOT NULL);
