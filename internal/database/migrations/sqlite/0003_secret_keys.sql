-- +goose Up

-- The secret keys that encrypt values of this store: one, or two until a rekey is
-- complete. An id is derived from its key and does not reveal it. A start without one
-- of the keys is refused.
CREATE TABLE secret_keys (
  id TEXT PRIMARY KEY
) STRICT;
