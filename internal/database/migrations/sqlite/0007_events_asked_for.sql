-- +goose Up
-- What an agent asked to be told of beside posted tasks, as JSON. Few ask, and few are
-- suspended: both are found, and counted, without a look at the others.
ALTER TABLE webhooks ADD COLUMN events TEXT NOT NULL DEFAULT '[]';
CREATE INDEX webhooks_asking ON webhooks (agent_id) WHERE events <> '[]';
CREATE INDEX webhooks_suspended ON webhooks (agent_id) WHERE status = 'suspended';

-- What a delivery tells of, and the worker that the event named.
ALTER TABLE deliveries ADD COLUMN event TEXT NOT NULL DEFAULT 'task.posted'
  CHECK (event IN ('task.posted', 'task.assigned', 'task.completed', 'task.cancelled', 'task.expired'));
ALTER TABLE deliveries ADD COLUMN worker_id TEXT;
