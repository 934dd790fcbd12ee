-- +goose Up
-- The search index. migrations/sqlite/0002_search.sql explains it.
ALTER TABLE tasks ADD COLUMN words text;
CREATE INDEX tasks_not_indexed ON tasks (id) WHERE words IS NULL;
ALTER TABLE agents ADD COLUMN words text;
CREATE INDEX agents_not_indexed ON agents (id) WHERE words IS NULL;

CREATE TABLE task_words (
  word    text COLLATE "C" NOT NULL,
  task_id text COLLATE "C" NOT NULL REFERENCES tasks (id),
  PRIMARY KEY (word, task_id)
);
CREATE TABLE agent_words (
  word     text COLLATE "C" NOT NULL,
  agent_id text COLLATE "C" NOT NULL REFERENCES agents (id),
  PRIMARY KEY (word, agent_id)
);

-- +goose StatementBegin
CREATE FUNCTION task_words_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO task_words (word, task_id) SELECT value, NEW.id FROM json_array_elements_text(NEW.words::json);
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER task_words_added AFTER INSERT ON tasks FOR EACH ROW WHEN (NEW.words IS NOT NULL AND NEW.origin = 'marketplace')
EXECUTE FUNCTION task_words_added();
CREATE TRIGGER task_words_filled AFTER UPDATE OF words ON tasks FOR EACH ROW WHEN (NEW.words IS NOT NULL AND NEW.origin = 'marketplace')
EXECUTE FUNCTION task_words_added();
CREATE TRIGGER tasks_words_immutable BEFORE UPDATE OF words ON tasks FOR EACH ROW WHEN (OLD.words IS NOT NULL)
EXECUTE FUNCTION reject_statement('the words of a task cannot change');
-- +goose StatementBegin
CREATE FUNCTION agent_words_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.words IS NOT NULL THEN
    DELETE FROM agent_words WHERE agent_id = OLD.id AND word = ANY (ARRAY(SELECT json_array_elements_text(OLD.words::json)));
  END IF;
  IF NEW.words IS NOT NULL THEN
    INSERT INTO agent_words (word, agent_id) SELECT value, NEW.id FROM json_array_elements_text(NEW.words::json);
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER agent_words_added AFTER INSERT ON agents FOR EACH ROW EXECUTE FUNCTION agent_words_changed();
CREATE TRIGGER agent_words_changed AFTER UPDATE ON agents FOR EACH ROW WHEN (NEW.words IS DISTINCT FROM OLD.words)
EXECUTE FUNCTION agent_words_changed();

-- A process of an older version may run during an upgrade. It changes the text of an
-- agent without its words. Then the words are null until a newer process fills them in.
-- +goose StatementBegin
CREATE FUNCTION agent_words_outdated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.words := NULL;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER agent_words_outdated BEFORE UPDATE OF name, description ON agents FOR EACH ROW
WHEN ((NEW.name <> OLD.name OR NEW.description <> OLD.description) AND NEW.words IS NOT DISTINCT FROM OLD.words)
EXECUTE FUNCTION agent_words_outdated();

DROP TRIGGER tasks_terms_immutable ON tasks;
CREATE TRIGGER tasks_terms_immutable BEFORE UPDATE OF id, poster_id, title, description, budget, origin, created_at ON tasks
FOR EACH ROW EXECUTE FUNCTION reject_statement('the terms of a task cannot change');
CREATE TRIGGER tasks_capabilities_immutable BEFORE UPDATE OF capabilities ON tasks FOR EACH ROW WHEN (OLD.words IS NOT NULL OR NEW.words IS NULL)
EXECUTE FUNCTION reject_statement('the terms of a task cannot change');

CREATE INDEX tasks_listed ON tasks (id) WHERE origin = 'marketplace';
CREATE INDEX agents_by_mode ON agents ((CASE WHEN endpoint_url <> '' THEN 'ENDPOINT' WHEN system_prompt <> '' THEN 'SYSTEM_PROMPT' ELSE 'NONE' END), id);
