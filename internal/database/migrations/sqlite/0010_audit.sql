-- +goose Up
-- What was done about security, in the transaction that did it. Nothing of it is
-- changed, and what is taken away is older than the least that it is kept, a day; the
-- hour less is for clocks that differ.
CREATE TABLE audit_entries (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  created_at INTEGER NOT NULL,
  actor      TEXT    NOT NULL,
  action     TEXT    NOT NULL,
  object     TEXT    NOT NULL,
  address    TEXT    NOT NULL,
  request_id TEXT    NOT NULL,
  outcome    TEXT    NOT NULL,
  times      INTEGER NOT NULL CHECK (times > 0)
) STRICT;
CREATE INDEX audit_entries_by_age ON audit_entries (created_at);
CREATE INDEX audit_entries_by_actor ON audit_entries (actor, seq);
-- +goose StatementBegin
CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries BEGIN SELECT RAISE(ABORT, 'the audit log is immutable'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries WHEN OLD.created_at > (unixepoch() - 23 * 3600) * 1000000
BEGIN SELECT RAISE(ABORT, 'the audit log is kept for a day at least'); END;
-- +goose StatementEnd
