-- +goose Up
-- An event has an id, by which deliveries name it, and a cursor, seq. Here they
-- are the same number; on PostgreSQL the cursor is given after the commit.
ALTER TABLE events ADD COLUMN id INTEGER GENERATED ALWAYS AS (seq) VIRTUAL;
ALTER TABLE deliveries RENAME COLUMN event_seq TO event_id;

-- The process that serves this market now, and which one runs a direct hire.
CREATE TABLE replicas (
  id      TEXT    PRIMARY KEY,
  seen_at INTEGER NOT NULL
) STRICT;
ALTER TABLE tasks ADD COLUMN replica TEXT;
UPDATE tasks SET replica = 'unknown' WHERE status = 'assigned' AND origin = 'direct';
CREATE INDEX tasks_running ON tasks (replica) WHERE status = 'assigned' AND origin = 'direct';
