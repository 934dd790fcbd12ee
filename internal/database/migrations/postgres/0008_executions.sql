-- +goose Up
-- A hire can be cancelled by who hired.
-- +goose StatementBegin
DO $$
DECLARE
  old text;
BEGIN
  SELECT conname INTO STRICT old FROM pg_constraint
  WHERE conrelid = 'tasks'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%marketplace%' AND pg_get_constraintdef(oid) LIKE '%failed%';
  EXECUTE format('ALTER TABLE tasks DROP CONSTRAINT %I', old);
END $$;
-- +goose StatementEnd
ALTER TABLE tasks ADD CONSTRAINT tasks_hire_states CHECK (origin = 'marketplace' OR status IN ('assigned', 'completed', 'cancelled', 'failed'));
