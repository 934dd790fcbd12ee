-- +goose Up

-- The replaced webhook secrets that still sign requests until signs_until. The ids of an
-- agent ascend in the order of its rotations; the secrets of older versions get '0', which
-- sorts before all UUIDs. The values are encrypted under the agent's id, like secrets.
CREATE TABLE previous_secrets (
  agent_id    TEXT    NOT NULL REFERENCES agents (id),
  id          TEXT    NOT NULL,
  encrypted   BLOB    NOT NULL,
  signs_until INTEGER NOT NULL,
  PRIMARY KEY (agent_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX previous_secrets_signs_until ON previous_secrets (signs_until);

INSERT INTO previous_secrets (agent_id, id, encrypted, signs_until)
SELECT agent_id, '0', previous, previous_until FROM secrets WHERE previous IS NOT NULL AND previous_until IS NOT NULL;
ALTER TABLE secrets DROP COLUMN previous;
ALTER TABLE secrets DROP COLUMN previous_until;
