-- +goose Up
-- What migrations/sqlite/0005_lists.sql says, in PostgreSQL's dialect.

ALTER TABLE task_capabilities ADD COLUMN status text NOT NULL DEFAULT 'open';
UPDATE task_capabilities SET status = (SELECT status FROM tasks WHERE id = task_id);
CREATE INDEX task_capabilities_by_status ON task_capabilities (capability, status, task_id);
DROP INDEX task_capabilities_by_task;
-- +goose StatementBegin
CREATE FUNCTION task_capabilities_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE task_capabilities SET status = NEW.status
  WHERE task_id = NEW.id AND capability = ANY (ARRAY(SELECT jsonb_array_elements_text(NEW.capabilities::jsonb)));
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER task_capabilities_follow AFTER UPDATE OF status ON tasks FOR EACH ROW WHEN (NEW.status <> OLD.status)
EXECUTE FUNCTION task_capabilities_follow();

ALTER TABLE agent_capabilities ADD COLUMN reputation double precision NOT NULL DEFAULT 0;
ALTER TABLE agent_capabilities ADD COLUMN price_per_task bigint NOT NULL DEFAULT 0;
ALTER TABLE agent_capabilities ADD COLUMN notified bigint NOT NULL DEFAULT 0;
UPDATE agent_capabilities c SET reputation = a.reputation, price_per_task = a.price_per_task,
  notified = CASE WHEN EXISTS (SELECT 1 FROM webhooks w WHERE w.agent_id = c.agent_id) THEN 1 ELSE 0 END
FROM agents a WHERE a.id = c.agent_id;
CREATE INDEX agent_capabilities_by_reputation ON agent_capabilities (capability, reputation, agent_id);
CREATE INDEX agent_capabilities_by_price ON agent_capabilities (capability, price_per_task, agent_id);
CREATE INDEX agent_capabilities_notified ON agent_capabilities (capability, agent_id) WHERE notified = 1;
-- The row of the agent is locked, so that what is read of it holds until the commit.
-- +goose StatementBegin
CREATE FUNCTION agent_capabilities_added() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  agent agents%ROWTYPE;
BEGIN
  SELECT * INTO agent FROM agents WHERE id = NEW.agent_id FOR NO KEY UPDATE;
  IF FOUND THEN
    NEW.reputation := agent.reputation;
    NEW.price_per_task := agent.price_per_task;
    NEW.notified := CASE WHEN EXISTS (SELECT 1 FROM webhooks w WHERE w.agent_id = NEW.agent_id) THEN 1 ELSE 0 END;
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER agent_capabilities_added BEFORE INSERT ON agent_capabilities FOR EACH ROW EXECUTE FUNCTION agent_capabilities_added();
-- +goose StatementBegin
CREATE FUNCTION agent_capabilities_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.reputation <> OLD.reputation OR NEW.price_per_task <> OLD.price_per_task THEN
    UPDATE agent_capabilities SET reputation = NEW.reputation, price_per_task = NEW.price_per_task WHERE agent_id = NEW.id;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER agent_capabilities_follow AFTER UPDATE OF rating_sum, rating_count, price_per_task ON agents FOR EACH ROW
EXECUTE FUNCTION agent_capabilities_follow();
-- +goose StatementBegin
CREATE FUNCTION webhooks_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE agent_capabilities SET notified = 1 WHERE agent_id = NEW.agent_id;
  ELSE
    UPDATE agent_capabilities SET notified = 0 WHERE agent_id = OLD.agent_id;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER webhooks_changed AFTER INSERT OR DELETE ON webhooks FOR EACH ROW EXECUTE FUNCTION webhooks_changed();

DROP INDEX tasks_by_budget;
CREATE INDEX tasks_by_budget ON tasks (status, budget, id) WHERE origin = 'marketplace';
DROP INDEX tasks_by_poster;
DROP INDEX tasks_by_worker;
CREATE INDEX tasks_by_poster ON tasks (poster_id, status, id);
CREATE INDEX tasks_by_worker ON tasks (worker_id, status, id) WHERE worker_id IS NOT NULL;

CREATE INDEX deliveries_by_status ON deliveries (agent_id, status, id);
CREATE INDEX deliveries_pending ON deliveries (id) WHERE status = 'pending';
