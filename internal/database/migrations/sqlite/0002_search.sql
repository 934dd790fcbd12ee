-- +goose Up
-- words is the JSON array of the normalised words of a task or an agent. The program
-- writes it, because SQL cannot normalise words. It is null for a row that an older
-- version of the program wrote. At its start the program fills in such rows.
ALTER TABLE tasks ADD COLUMN words TEXT;
CREATE INDEX tasks_not_indexed ON tasks (id) WHERE words IS NULL;
ALTER TABLE agents ADD COLUMN words TEXT;
CREATE INDEX agents_not_indexed ON agents (id) WHERE words IS NULL;

-- The search index: one row per word of a posted task or an agent. Triggers keep it.
CREATE TABLE task_words (
  word    TEXT NOT NULL,
  task_id TEXT NOT NULL REFERENCES tasks (id),
  PRIMARY KEY (word, task_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE agent_words (
  word     TEXT NOT NULL,
  agent_id TEXT NOT NULL REFERENCES agents (id),
  PRIMARY KEY (word, agent_id)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER task_words_added AFTER INSERT ON tasks WHEN NEW.words IS NOT NULL AND NEW.origin = 'marketplace'
BEGIN INSERT INTO task_words (word, task_id) SELECT value, NEW.id FROM json_each(NEW.words); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER task_words_filled AFTER UPDATE OF words ON tasks WHEN NEW.origin = 'marketplace'
BEGIN INSERT INTO task_words (word, task_id) SELECT value, NEW.id FROM json_each(NEW.words); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_words_immutable BEFORE UPDATE OF words ON tasks WHEN OLD.words IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the words of a task cannot change'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER agent_words_added AFTER INSERT ON agents WHEN NEW.words IS NOT NULL
BEGIN INSERT INTO agent_words (word, agent_id) SELECT value, NEW.id FROM json_each(NEW.words); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER agent_words_changed AFTER UPDATE OF words ON agents WHEN NEW.words IS NOT OLD.words
BEGIN
  DELETE FROM agent_words WHERE agent_id = OLD.id AND word IN (SELECT value FROM json_each(OLD.words));
  INSERT INTO agent_words (word, agent_id) SELECT value, NEW.id FROM json_each(NEW.words);
END;
-- +goose StatementEnd

-- The capabilities of a task change once, when the program indexes a row of an older
-- version: it normalises them then.
DROP TRIGGER tasks_terms_immutable;
-- +goose StatementBegin
CREATE TRIGGER tasks_terms_immutable BEFORE UPDATE OF id, poster_id, title, description, budget, origin, created_at ON tasks
BEGIN SELECT RAISE(ABORT, 'the terms of a task cannot change'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_capabilities_immutable BEFORE UPDATE OF capabilities ON tasks WHEN OLD.words IS NOT NULL OR NEW.words IS NULL
BEGIN SELECT RAISE(ABORT, 'the terms of a task cannot change'); END;
-- +goose StatementEnd

-- Every filter and order of a list reads one of these, or an index of 0001.
CREATE INDEX tasks_listed ON tasks (id) WHERE origin = 'marketplace';
CREATE INDEX agents_by_mode ON agents (CASE WHEN endpoint_url <> '' THEN 'ENDPOINT' WHEN system_prompt <> '' THEN 'SYSTEM_PROMPT' ELSE 'NONE' END, id);
