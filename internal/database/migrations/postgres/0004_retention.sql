-- +goose Up
-- What migrations/sqlite/0004_retention.sql says, in PostgreSQL's dialect.

CREATE TABLE event_horizon (
  one        bigint PRIMARY KEY CHECK (one = 1),
  seq        bigint NOT NULL,
  created_at bigint NOT NULL
);
INSERT INTO event_horizon (one, seq, created_at) VALUES (1, 0, 0);

CREATE TABLE ledger_sums (
  one    bigint PRIMARY KEY CHECK (one = 1),
  seq    bigint NOT NULL,
  issued bigint NOT NULL CHECK (issued >= 0),
  fees   bigint NOT NULL CHECK (fees >= 0)
);
INSERT INTO ledger_sums (one, seq, issued, fees) VALUES (1, 0, 0, 0);

-- +goose StatementBegin
CREATE FUNCTION event_horizon_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.one = OLD.one AND NEW.seq > OLD.seq AND NEW.created_at >= OLD.created_at
    AND NEW.created_at <= (EXTRACT(epoch FROM clock_timestamp())::bigint - 23 * 3600) * 1000000
    AND NEW.seq <= (SELECT seq FROM ledger_sums)
    AND EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
    AND NOT EXISTS (SELECT 1 FROM events WHERE seq > OLD.seq AND seq <= NEW.seq AND created_at > NEW.created_at)
    AND NOT EXISTS (SELECT 1 FROM events e JOIN deliveries d ON d.event_id = e.id WHERE e.seq > OLD.seq AND e.seq <= NEW.seq) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the horizon of events moves on over what is old';
END $$;
-- +goose StatementEnd
CREATE TRIGGER event_horizon_moves BEFORE UPDATE ON event_horizon FOR EACH ROW EXECUTE FUNCTION event_horizon_moves();
CREATE TRIGGER event_horizon_one BEFORE INSERT ON event_horizon FOR EACH ROW EXECUTE FUNCTION refuse('there is one horizon of events');
CREATE TRIGGER event_horizon_kept BEFORE DELETE ON event_horizon FOR EACH ROW EXECUTE FUNCTION refuse('there is one horizon of events');
CREATE TRIGGER event_horizon_no_truncate BEFORE TRUNCATE ON event_horizon EXECUTE FUNCTION refuse('there is one horizon of events');

-- It looks once for all that a statement takes away.
-- +goose StatementBegin
CREATE FUNCTION events_may_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM gone WHERE seq IS NULL OR seq > COALESCE((SELECT seq FROM event_horizon), 0)) THEN
    RAISE EXCEPTION 'events are kept until the horizon has passed them';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER events_no_delete AFTER DELETE ON events REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION events_may_go();
CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events EXECUTE FUNCTION refuse('events are kept until the horizon has passed them');

CREATE TRIGGER ledger_sums_move BEFORE UPDATE ON ledger_sums FOR EACH ROW WHEN (NEW.seq <= OLD.seq OR NEW.issued < OLD.issued OR NEW.fees < OLD.fees)
EXECUTE FUNCTION refuse('the sums of the ledger only grow');
CREATE TRIGGER ledger_sums_kept BEFORE DELETE ON ledger_sums FOR EACH ROW EXECUTE FUNCTION refuse('the sums of the ledger only grow');
CREATE TRIGGER ledger_sums_no_truncate BEFORE TRUNCATE ON ledger_sums EXECUTE FUNCTION refuse('the sums of the ledger only grow');
CREATE TRIGGER transfers_no_truncate BEFORE TRUNCATE ON transfers EXECUTE FUNCTION refuse('transfers are immutable');
