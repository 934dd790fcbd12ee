-- +goose Up
-- What migrations/sqlite/0007_events_asked_for.sql says, in PostgreSQL's dialect.
ALTER TABLE webhooks ADD COLUMN events text NOT NULL DEFAULT '[]';
CREATE INDEX webhooks_asking ON webhooks (agent_id) WHERE events <> '[]';
CREATE INDEX webhooks_suspended ON webhooks (agent_id) WHERE status = 'suspended';

ALTER TABLE deliveries ADD COLUMN event text NOT NULL DEFAULT 'task.posted'
  CHECK (event IN ('task.posted', 'task.assigned', 'task.completed', 'task.cancelled', 'task.expired'));
ALTER TABLE deliveries ADD COLUMN worker_id text COLLATE "C";
