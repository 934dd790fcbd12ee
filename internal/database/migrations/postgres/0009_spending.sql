-- +goose Up
-- What migrations/sqlite/0009_spending.sql says, in PostgreSQL's dialect.
ALTER TABLE tasks ADD COLUMN tokens bigint CHECK (tokens >= 0);
CREATE INDEX tasks_on_model ON tasks (created_at, poster_id, tokens) WHERE tokens IS NOT NULL;
CREATE INDEX tasks_on_model_now ON tasks (poster_id) WHERE tokens IS NOT NULL AND status = 'assigned';
