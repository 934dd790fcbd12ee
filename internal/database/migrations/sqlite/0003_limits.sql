-- +goose Up
-- The networks that registered agents of late, each by when it may register a
-- whole burst again: the only number that a limit by the minute needs.
CREATE TABLE registrants (
  network TEXT    PRIMARY KEY,
  full_at INTEGER NOT NULL
) STRICT;
CREATE INDEX registrants_by_age ON registrants (full_at);
