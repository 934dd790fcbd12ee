-- +goose Up
-- How many tokens of the operator's a hire may use up, or has, when it runs on the
-- operator's model; null for every other task. Limits are held against these rows
-- alone, so that no count of its own can go wrong.
ALTER TABLE tasks ADD COLUMN tokens INTEGER CHECK (tokens >= 0);
CREATE INDEX tasks_on_model ON tasks (created_at, poster_id, tokens) WHERE tokens IS NOT NULL;
CREATE INDEX tasks_on_model_now ON tasks (poster_id) WHERE tokens IS NOT NULL AND status = 'assigned';
