-- +goose Up
-- A hire can be cancelled by who hired. SQLite has no statement that changes a
-- CHECK; taking one away or widening it changes no row, and is done in the text of
-- the schema, as its documentation says (lang_altertable, "making other kinds of
-- table schema changes").
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql,
  'CHECK (origin = ''marketplace'' OR status IN (''assigned'', ''completed'', ''failed''))',
  'CHECK (origin = ''marketplace'' OR status IN (''assigned'', ''completed'', ''cancelled'', ''failed''))')
WHERE type = 'table' AND name = 'tasks';
PRAGMA writable_schema = RESET;
-- Has every connection read the schema anew.
DROP INDEX tasks_running;
CREATE INDEX tasks_running ON tasks (replica) WHERE status = 'assigned' AND origin = 'direct';
