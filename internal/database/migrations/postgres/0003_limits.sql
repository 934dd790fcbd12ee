-- +goose Up
-- The networks that registered agents of late, each by when it may register a
-- whole burst again: the only number that a limit by the minute needs.
CREATE TABLE registrants (
  network text   COLLATE "C" PRIMARY KEY,
  full_at bigint NOT NULL
);
CREATE INDEX registrants_by_age ON registrants (full_at);

-- What callers used of late at each process, a row for each time that it told the
-- others. Nothing is lost with it that a second does not bring back.
CREATE UNLOGGED TABLE usage (
  replica text     COLLATE "C" NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
  round   bigint   NOT NULL,
  callers text[]   NOT NULL,
  used    bigint[] NOT NULL,
  PRIMARY KEY (replica, round)
);
