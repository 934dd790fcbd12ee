-- +goose Up
-- Since when a webhook is suspended and why; null while it is served, and of those
-- that an older program suspended.
ALTER TABLE webhooks ADD COLUMN suspended_at INTEGER;
ALTER TABLE webhooks ADD COLUMN suspended_for TEXT CHECK (suspended_for IN ('gone', 'failing'));

-- The headers of a try and of its answer, as JSON.
ALTER TABLE attempts ADD COLUMN request_headers TEXT NOT NULL DEFAULT '[]';
ALTER TABLE attempts ADD COLUMN response_headers TEXT NOT NULL DEFAULT '[]';
