-- +goose Up
-- Lists by a capability find their rows in order: its rows carry what the lists
-- go by, and follow the task, the agent and the webhook that they are about.

-- A row is written with its task, which is open then: the default is right, and a post
-- pays for no trigger. Direct hires have no rows.
ALTER TABLE task_capabilities ADD COLUMN status TEXT NOT NULL DEFAULT 'open';
UPDATE task_capabilities SET status = (SELECT status FROM tasks WHERE id = task_id);
CREATE INDEX task_capabilities_by_status ON task_capabilities (capability, status, task_id);
DROP INDEX task_capabilities_by_task;
-- +goose StatementBegin
CREATE TRIGGER task_capabilities_follow AFTER UPDATE OF status ON tasks WHEN NEW.status <> OLD.status
BEGIN
  UPDATE task_capabilities SET status = NEW.status
  WHERE task_id = NEW.id AND capability IN (SELECT value FROM json_each(NEW.capabilities));
END;
-- +goose StatementEnd

ALTER TABLE agent_capabilities ADD COLUMN reputation REAL NOT NULL DEFAULT 0;
ALTER TABLE agent_capabilities ADD COLUMN price_per_task INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent_capabilities ADD COLUMN notified INTEGER NOT NULL DEFAULT 0;
UPDATE agent_capabilities SET (reputation, price_per_task) = (SELECT reputation, price_per_task FROM agents WHERE id = agent_id),
  notified = EXISTS (SELECT 1 FROM webhooks w WHERE w.agent_id = agent_capabilities.agent_id);
CREATE INDEX agent_capabilities_by_reputation ON agent_capabilities (capability, reputation, agent_id);
CREATE INDEX agent_capabilities_by_price ON agent_capabilities (capability, price_per_task, agent_id);
CREATE INDEX agent_capabilities_notified ON agent_capabilities (capability, agent_id) WHERE notified = 1;
-- Who adds a row says the capability and the agent alone, as programs of before do.
-- +goose StatementBegin
CREATE TRIGGER agent_capabilities_added AFTER INSERT ON agent_capabilities
BEGIN
  UPDATE agent_capabilities SET reputation = a.reputation, price_per_task = a.price_per_task,
    notified = EXISTS (SELECT 1 FROM webhooks w WHERE w.agent_id = a.id)
  FROM agents a WHERE a.id = NEW.agent_id AND agent_capabilities.capability = NEW.capability AND agent_capabilities.agent_id = NEW.agent_id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER agent_capabilities_follow AFTER UPDATE OF rating_sum, rating_count, price_per_task ON agents
WHEN NEW.reputation <> OLD.reputation OR NEW.price_per_task <> OLD.price_per_task
BEGIN
  UPDATE agent_capabilities SET reputation = NEW.reputation, price_per_task = NEW.price_per_task WHERE agent_id = NEW.id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER webhooks_set AFTER INSERT ON webhooks
BEGIN UPDATE agent_capabilities SET notified = 1 WHERE agent_id = NEW.agent_id; END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER webhooks_removed AFTER DELETE ON webhooks
BEGIN UPDATE agent_capabilities SET notified = 0 WHERE agent_id = OLD.agent_id; END;
-- +goose StatementEnd

-- By budget, the tasks in one state: those that are open are few among all.
DROP INDEX tasks_by_budget;
CREATE INDEX tasks_by_budget ON tasks (status, budget, id) WHERE origin = 'marketplace';

-- So are those that one agent has under way among all it ever had.
DROP INDEX tasks_by_poster;
DROP INDEX tasks_by_worker;
CREATE INDEX tasks_by_poster ON tasks (poster_id, status, id);
CREATE INDEX tasks_by_worker ON tasks (worker_id, status, id) WHERE worker_id IS NOT NULL;

-- What of an agent's deliveries failed, and how many wait.
CREATE INDEX deliveries_by_status ON deliveries (agent_id, status, id);
CREATE INDEX deliveries_pending ON deliveries (id) WHERE status = 'pending';
