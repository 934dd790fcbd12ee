-- +goose Up
-- Events up to seq are no longer kept; created_at is the newest time that one of
-- them had. Who takes events away moves this on first, over whole runs of the log
-- that are old and are counted in ledger_sums, and never back. The least that
-- events are kept is a day; the hour less is for clocks that differ.
CREATE TABLE event_horizon (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  seq        INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
INSERT INTO event_horizon (one, seq, created_at) VALUES (1, 0, 0);

-- What was issued and what the platform earned, up to an event. The rest is the
-- transfers that later events name.
CREATE TABLE ledger_sums (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  seq    INTEGER NOT NULL,
  issued INTEGER NOT NULL CHECK (issued >= 0),
  fees   INTEGER NOT NULL CHECK (fees >= 0)
) STRICT;
INSERT INTO ledger_sums (one, seq, issued, fees) VALUES (1, 0, 0, 0);

-- +goose StatementBegin
CREATE TRIGGER event_horizon_moves BEFORE UPDATE ON event_horizon WHEN NOT (
  NEW.one = OLD.one AND NEW.seq > OLD.seq AND NEW.created_at >= OLD.created_at
  AND NEW.created_at <= (unixepoch() - 23 * 3600) * 1000000
  AND NEW.seq <= (SELECT seq FROM ledger_sums)
  AND EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
  AND NOT EXISTS (SELECT 1 FROM events WHERE seq > OLD.seq AND seq <= NEW.seq AND created_at > NEW.created_at)
  AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id > OLD.seq AND event_id <= NEW.seq))
BEGIN SELECT RAISE(ABORT, 'the horizon of events moves on over what is old'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER event_horizon_one BEFORE INSERT ON event_horizon BEGIN SELECT RAISE(ABORT, 'there is one horizon of events'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER event_horizon_kept BEFORE DELETE ON event_horizon BEGIN SELECT RAISE(ABORT, 'there is one horizon of events'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER events_no_delete BEFORE DELETE ON events WHEN OLD.seq > COALESCE((SELECT seq FROM event_horizon), 0)
BEGIN SELECT RAISE(ABORT, 'events are kept until the horizon has passed them'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER ledger_sums_move BEFORE UPDATE ON ledger_sums WHEN NEW.seq <= OLD.seq OR NEW.issued < OLD.issued OR NEW.fees < OLD.fees
BEGIN SELECT RAISE(ABORT, 'the sums of the ledger only grow'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER ledger_sums_kept BEFORE DELETE ON ledger_sums BEGIN SELECT RAISE(ABORT, 'the sums of the ledger only grow'); END;
-- +goose StatementEnd
