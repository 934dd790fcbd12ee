-- +goose Up
-- Times are Unix microseconds, money is whole credits. STRICT tables refuse 1.5
-- and '25'. What the marketplace promises about money is refused here by itself,
-- whatever the program above does.

CREATE TABLE agents (
  id              TEXT    PRIMARY KEY,
  name            TEXT    NOT NULL,
  description     TEXT    NOT NULL,
  capabilities    TEXT    NOT NULL CHECK (json_valid(capabilities)),
  price_per_task  INTEGER NOT NULL CHECK (price_per_task >= 1),
  endpoint_url    TEXT    NOT NULL,
  system_prompt   TEXT    NOT NULL,
  owner_email     TEXT    NOT NULL,
  rating_sum      INTEGER NOT NULL DEFAULT 0,
  rating_count    INTEGER NOT NULL DEFAULT 0,
  completed_count INTEGER NOT NULL DEFAULT 0,
  created_at      INTEGER NOT NULL,
  reputation      REAL    GENERATED ALWAYS AS (CASE rating_count WHEN 0 THEN 0.0 ELSE CAST(rating_sum AS REAL) / rating_count END) VIRTUAL
) STRICT;
CREATE INDEX agents_by_reputation ON agents (reputation, id);
CREATE INDEX agents_by_price ON agents (price_per_task, id);

-- One row per agent and capability: who is told of a task, and the list filter.
CREATE TABLE agent_capabilities (
  capability TEXT NOT NULL,
  agent_id   TEXT NOT NULL REFERENCES agents (id),
  PRIMARY KEY (capability, agent_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_capabilities_by_agent ON agent_capabilities (agent_id);

CREATE TABLE api_keys (
  hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
  agent_id   TEXT    NOT NULL REFERENCES agents (id),
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;
CREATE INDEX api_keys_by_agent ON api_keys (agent_id);

CREATE TABLE tasks (
  id             TEXT    PRIMARY KEY,
  poster_id      TEXT    NOT NULL REFERENCES agents (id),
  worker_id      TEXT    REFERENCES agents (id),
  title          TEXT    NOT NULL,
  description    TEXT    NOT NULL,
  budget         INTEGER NOT NULL CHECK (budget BETWEEN 2 AND 1000000000),
  capabilities   TEXT    NOT NULL CHECK (json_valid(capabilities)),
  origin         TEXT    NOT NULL CHECK (origin IN ('marketplace', 'direct')),
  status         TEXT    NOT NULL CHECK (status IN ('open', 'assigned', 'completed', 'cancelled', 'expired', 'failed')),
  attempt        INTEGER NOT NULL DEFAULT 0,
  lapses         INTEGER NOT NULL DEFAULT 0,
  lease_for      INTEGER NOT NULL,
  open_until     INTEGER NOT NULL,
  lease_until    INTEGER,
  result         TEXT,
  rating_score   INTEGER CHECK (rating_score BETWEEN 1 AND 5),
  rating_comment TEXT,
  rated_at       INTEGER,
  created_at     INTEGER NOT NULL,
  accepted_at    INTEGER,
  completed_at   INTEGER,
  closed_at      INTEGER,
  CHECK (worker_id <> poster_id),
  CHECK (status NOT IN ('assigned', 'completed') OR worker_id IS NOT NULL),
  CHECK (status <> 'open' OR worker_id IS NULL),
  CHECK ((status = 'completed') = (result IS NOT NULL)),
  CHECK (status = 'completed' OR rating_score IS NULL),
  CHECK (origin = 'marketplace' OR status IN ('assigned', 'completed', 'failed'))
) STRICT;
CREATE INDEX tasks_by_status ON tasks (status, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_budget ON tasks (budget, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_poster ON tasks (poster_id, id);
CREATE INDEX tasks_by_worker ON tasks (worker_id, id) WHERE worker_id IS NOT NULL;
CREATE INDEX tasks_open_ending ON tasks (open_until) WHERE status = 'open';
CREATE INDEX tasks_lease_ending ON tasks (lease_until) WHERE status = 'assigned';

CREATE TABLE task_capabilities (
  capability TEXT NOT NULL,
  task_id    TEXT NOT NULL REFERENCES tasks (id),
  PRIMARY KEY (capability, task_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_capabilities_by_task ON task_capabilities (task_id);

-- +goose StatementBegin
CREATE TRIGGER tasks_move BEFORE UPDATE OF status, attempt ON tasks WHEN NOT (
     (OLD.status = NEW.status AND (OLD.attempt = NEW.attempt OR (NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)))
  OR (OLD.status = 'open'     AND NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)
  OR (OLD.status = 'open'     AND NEW.status IN ('cancelled', 'expired') AND NEW.attempt = OLD.attempt)
  OR (OLD.status = 'assigned' AND NEW.status IN ('open', 'completed', 'cancelled', 'expired', 'failed') AND NEW.attempt = OLD.attempt))
BEGIN SELECT RAISE(ABORT, 'illegal move of a task'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_frozen BEFORE UPDATE OF id, poster_id, title, description, budget, capabilities, origin, created_at ON tasks
BEGIN SELECT RAISE(ABORT, 'what a task asks for is fixed'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_done BEFORE UPDATE OF worker_id, result ON tasks
WHEN OLD.status IN ('completed', 'cancelled', 'expired', 'failed')
BEGIN SELECT RAISE(ABORT, 'a task that has ended is fixed'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_rated_once BEFORE UPDATE OF rating_score ON tasks WHEN OLD.rating_score IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a task is rated once'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_kept BEFORE DELETE ON tasks BEGIN SELECT RAISE(ABORT, 'tasks are kept'); END;
-- +goose StatementEnd

-- The spendable and the set-aside credits of an agent. last_seq is the newest
-- transfer that the row counts.
CREATE TABLE wallets (
  agent_id  TEXT    PRIMARY KEY REFERENCES agents (id),
  available INTEGER NOT NULL DEFAULT 0 CHECK (available >= 0),
  held      INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
  last_seq  INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The truth about money. Accounts are issuance, fees, available:AGENT,
-- held:AGENT and escrow:TASK; id is natural (payout:TASK), so that a second
-- payout of a task cannot exist. balance_after is what the agent can spend
-- after the transfer, null when it leaves every available account alone.
CREATE TABLE transfers (
  seq            INTEGER PRIMARY KEY AUTOINCREMENT,
  id             TEXT    NOT NULL UNIQUE,
  kind           TEXT    NOT NULL CHECK (kind IN ('grant', 'hold', 'escrow', 'hire', 'reopen', 'payout', 'fee', 'refund')),
  debit_account  TEXT    NOT NULL,
  credit_account TEXT    NOT NULL,
  amount         INTEGER NOT NULL CHECK (amount > 0),
  task_id        TEXT    REFERENCES tasks (id),
  balance_after  INTEGER CHECK (balance_after >= 0),
  created_at     INTEGER NOT NULL,
  CHECK ((kind = 'grant') = (task_id IS NULL)),
  CHECK ((balance_after IS NOT NULL) = (debit_account GLOB 'available:*' OR credit_account GLOB 'available:*'))
) STRICT;
CREATE INDEX transfers_by_debit ON transfers (debit_account, seq, amount);
CREATE INDEX transfers_by_credit ON transfers (credit_account, seq, amount);

-- +goose StatementBegin
CREATE TRIGGER transfers_no_update BEFORE UPDATE ON transfers BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER transfers_no_delete BEFORE DELETE ON transfers BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER transfers_grant BEFORE INSERT ON transfers WHEN NEW.kind = 'grant' AND NOT (
      NEW.debit_account = 'issuance' AND NEW.credit_account GLOB 'available:*'
  AND NEW.id = 'grant:' || substr(NEW.credit_account, 11))
BEGIN SELECT RAISE(ABORT, 'a grant goes from issuance to an agent, once'); END;
-- +goose StatementEnd
-- The money of a task moves as the task did: the task's row is changed first,
-- and only the accounts, the amount and the id that its state calls for pass.
-- +goose StatementBegin
CREATE TRIGGER transfers_follow_task BEFORE INSERT ON transfers WHEN NEW.kind <> 'grant' AND NOT EXISTS (
  SELECT 1 FROM tasks t WHERE t.id = NEW.task_id AND CASE NEW.kind
    WHEN 'hold'   THEN t.status = 'open' AND t.attempt = 0 AND NEW.amount = t.budget AND NEW.id = 'hold:' || t.id
                   AND NEW.debit_account = 'available:' || t.poster_id AND NEW.credit_account = 'held:' || t.poster_id
    WHEN 'escrow' THEN t.status = 'assigned' AND t.origin = 'marketplace' AND NEW.amount = t.budget AND NEW.id = 'escrow:' || t.id || ':' || t.attempt
                   AND NEW.debit_account = 'held:' || t.poster_id AND NEW.credit_account = 'escrow:' || t.id
    WHEN 'hire'   THEN t.status = 'assigned' AND t.origin = 'direct' AND NEW.amount = t.budget AND NEW.id = 'hire:' || t.id
                   AND NEW.debit_account = 'available:' || t.poster_id AND NEW.credit_account = 'escrow:' || t.id
    WHEN 'reopen' THEN t.status = 'open' AND NEW.amount = t.budget AND NEW.id = 'reopen:' || t.id || ':' || t.attempt
                   AND NEW.debit_account = 'escrow:' || t.id AND NEW.credit_account = 'held:' || t.poster_id
    WHEN 'payout' THEN t.status = 'completed' AND NEW.amount = t.budget * 90 / 100 AND NEW.id = 'payout:' || t.id
                   AND NEW.debit_account = 'escrow:' || t.id AND NEW.credit_account = 'available:' || t.worker_id
    WHEN 'fee'    THEN t.status = 'completed' AND NEW.amount = t.budget - t.budget * 90 / 100 AND NEW.id = 'fee:' || t.id
                   AND NEW.debit_account = 'escrow:' || t.id AND NEW.credit_account = 'fees'
    WHEN 'refund' THEN t.status IN ('cancelled', 'expired', 'failed') AND NEW.amount = t.budget AND NEW.id = 'refund:' || t.id
                   AND NEW.debit_account IN ('escrow:' || t.id, 'held:' || t.poster_id) AND NEW.credit_account = 'available:' || t.poster_id
    END)
BEGIN SELECT RAISE(ABORT, 'a transfer must follow its task'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER transfers_no_overdraft BEFORE INSERT ON transfers
WHEN NEW.debit_account GLOB 'escrow:*' AND NEW.amount >
    (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = NEW.debit_account)
  - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = NEW.debit_account)
BEGIN SELECT RAISE(ABORT, 'an escrow cannot pay what it does not hold'); END;
-- +goose StatementEnd

-- A wallet is born empty, is kept, and changes by exactly what new transfers say.
-- +goose StatementBegin
CREATE TRIGGER wallets_start_empty BEFORE INSERT ON wallets WHEN NEW.available <> 0 OR NEW.held <> 0 OR NEW.last_seq <> 0
BEGIN SELECT RAISE(ABORT, 'a new wallet is empty'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER wallets_kept BEFORE DELETE ON wallets BEGIN SELECT RAISE(ABORT, 'wallets are kept'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER wallets_explained BEFORE UPDATE ON wallets WHEN NOT (
  NEW.agent_id = OLD.agent_id AND NEW.last_seq > OLD.last_seq
  AND NEW.available - OLD.available =
      (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = 'available:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq)
    - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = 'available:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq)
  AND NEW.held - OLD.held =
      (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = 'held:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq)
    - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = 'held:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq))
BEGIN SELECT RAISE(ABORT, 'a wallet changes only by a transfer'); END;
-- +goose StatementEnd

-- What happened, in the order it was committed. AUTOINCREMENT on one writer
-- gives a sequence that a reader can follow without skipping.
CREATE TABLE events (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  kind        TEXT    NOT NULL,
  task_id     TEXT    REFERENCES tasks (id),
  poster_id   TEXT,
  worker_id   TEXT,
  agent_id    TEXT,
  transfer_id TEXT,
  created_at  INTEGER NOT NULL
) STRICT;
-- +goose StatementBegin
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are immutable'); END;
-- +goose StatementEnd

-- The secret that signs what is sent to an agent; sealed with the server's key.
CREATE TABLE secrets (
  agent_id  TEXT    PRIMARY KEY REFERENCES agents (id),
  sealed    BLOB    NOT NULL,
  hint      TEXT    NOT NULL,
  old       BLOB,
  old_until INTEGER
) STRICT;

CREATE TABLE webhooks (
  agent_id      TEXT    PRIMARY KEY REFERENCES agents (id),
  url           TEXT    NOT NULL,
  status        TEXT    NOT NULL CHECK (status IN ('active', 'suspended')),
  failing_since INTEGER,
  updated_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE deliveries (
  id              TEXT    PRIMARY KEY,
  agent_id        TEXT    NOT NULL REFERENCES agents (id),
  event_seq       INTEGER NOT NULL REFERENCES events (seq),
  task_id         TEXT    NOT NULL REFERENCES tasks (id),
  status          TEXT    NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  attempts        INTEGER NOT NULL DEFAULT 0,
  tries_left      INTEGER NOT NULL CHECK (tries_left >= 0),
  response_status INTEGER,
  last_error      TEXT,
  created_at      INTEGER NOT NULL,
  last_attempt_at INTEGER,
  next_attempt_at INTEGER,
  UNIQUE (event_seq, agent_id)
) STRICT;
CREATE INDEX deliveries_by_agent ON deliveries (agent_id, id);

CREATE TABLE attempts (
  delivery_id     TEXT    NOT NULL REFERENCES deliveries (id),
  number          INTEGER NOT NULL,
  started_at      INTEGER NOT NULL,
  latency_us      INTEGER NOT NULL,
  response_status INTEGER,
  error           TEXT,
  response_body   TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;

-- Answers kept for a day, so that a retry with the same key changes nothing.
-- A null answer is an effect that is still under way.
CREATE TABLE idempotency_keys (
  scope       TEXT    NOT NULL,
  key         TEXT    NOT NULL,
  fingerprint BLOB    NOT NULL,
  answer      BLOB,
  task_id     TEXT,
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_task ON idempotency_keys (task_id) WHERE task_id IS NOT NULL;
