-- +goose Up
-- The replaced webhook secrets. migrations/sqlite/0004_previous_secrets.sql explains them.
CREATE TABLE previous_secrets (
  agent_id    text   COLLATE "C" NOT NULL REFERENCES agents (id),
  id          text   COLLATE "C" NOT NULL,
  encrypted   bytea  NOT NULL,
  signs_until bigint NOT NULL,
  PRIMARY KEY (agent_id, id)
);
CREATE INDEX previous_secrets_signs_until ON previous_secrets (signs_until);

INSERT INTO previous_secrets (agent_id, id, encrypted, signs_until)
SELECT agent_id, '0', previous, previous_until FROM secrets WHERE previous IS NOT NULL AND previous_until IS NOT NULL;
ALTER TABLE secrets DROP COLUMN previous;
ALTER TABLE secrets DROP COLUMN previous_until;
