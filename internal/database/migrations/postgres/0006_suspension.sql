-- +goose Up
-- What migrations/sqlite/0006_suspension.sql says, in PostgreSQL's dialect.
ALTER TABLE webhooks ADD COLUMN suspended_at bigint;
ALTER TABLE webhooks ADD COLUMN suspended_for text CHECK (suspended_for IN ('gone', 'failing'));

ALTER TABLE attempts ADD COLUMN request_headers text NOT NULL DEFAULT '[]';
ALTER TABLE attempts ADD COLUMN response_headers text NOT NULL DEFAULT '[]';
