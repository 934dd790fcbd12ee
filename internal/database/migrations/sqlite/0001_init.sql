-- +goose Up
-- Times are Unix microseconds. Money is in whole credits. STRICT tables reject 1.5
-- and '25'. Constraints and triggers enforce the rules about money, whatever the
-- program does.

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

-- One row per agent and capability. Lists by capability read these rows in index
-- order, so each row carries the sort columns. Triggers copy them from the agent.
-- has_webhook is 1 if the agent has a webhook.
CREATE TABLE agent_capabilities (
  capability     TEXT    NOT NULL,
  agent_id       TEXT    NOT NULL REFERENCES agents (id),
  reputation     REAL    NOT NULL DEFAULT 0,
  price_per_task INTEGER NOT NULL DEFAULT 0,
  has_webhook    INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (capability, agent_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_capabilities_by_agent ON agent_capabilities (agent_id);
CREATE INDEX agent_capabilities_by_reputation ON agent_capabilities (capability, reputation, agent_id);
CREATE INDEX agent_capabilities_by_price ON agent_capabilities (capability, price_per_task, agent_id);
CREATE INDEX agent_capabilities_with_webhook ON agent_capabilities (capability, agent_id) WHERE has_webhook = 1;

-- The program inserts the capability and the agent. The trigger fills in the rest.
-- +goose StatementBegin
CREATE TRIGGER agent_capabilities_added AFTER INSERT ON agent_capabilities
BEGIN
  UPDATE agent_capabilities SET reputation = a.reputation, price_per_task = a.price_per_task,
    has_webhook = EXISTS (SELECT 1 FROM webhooks w WHERE w.agent_id = a.id)
  FROM agents a WHERE a.id = NEW.agent_id AND agent_capabilities.capability = NEW.capability AND agent_capabilities.agent_id = NEW.agent_id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER agent_capabilities_sync AFTER UPDATE OF rating_sum, rating_count, price_per_task ON agents
WHEN NEW.reputation <> OLD.reputation OR NEW.price_per_task <> OLD.price_per_task
BEGIN
  UPDATE agent_capabilities SET reputation = NEW.reputation, price_per_task = NEW.price_per_task WHERE agent_id = NEW.id;
END;
-- +goose StatementEnd

CREATE TABLE api_keys (
  hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
  agent_id   TEXT    NOT NULL REFERENCES agents (id),
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;
CREATE INDEX api_keys_by_agent ON api_keys (agent_id);

-- replica is the process that runs a direct hire. tokens is the number of model
-- tokens that a direct hire has used or may still use. It is null for a task that
-- does not run on the operator's model. The token limits are sums of this column.
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
  replica        TEXT,
  tokens         INTEGER CHECK (tokens >= 0),
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
  CHECK (origin = 'marketplace' OR status IN ('assigned', 'completed', 'cancelled', 'failed'))
) STRICT;
CREATE INDEX tasks_by_status ON tasks (status, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_budget ON tasks (status, budget, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_poster ON tasks (poster_id, status, id);
CREATE INDEX tasks_by_worker ON tasks (worker_id, status, id) WHERE worker_id IS NOT NULL;
CREATE INDEX tasks_open_ending ON tasks (open_until) WHERE status = 'open';
CREATE INDEX tasks_lease_ending ON tasks (lease_until) WHERE status = 'assigned';
CREATE INDEX tasks_running ON tasks (replica) WHERE status = 'assigned' AND origin = 'direct';
CREATE INDEX tasks_on_model ON tasks (created_at, poster_id, tokens) WHERE tokens IS NOT NULL;
CREATE INDEX tasks_on_model_now ON tasks (poster_id) WHERE tokens IS NOT NULL AND status = 'assigned';

-- One row per posted task and capability. Direct hires have no rows. The program
-- inserts the row with its task, which is open at that time. Therefore the default
-- of status is correct, and an insert needs no trigger.
CREATE TABLE task_capabilities (
  capability TEXT NOT NULL,
  task_id    TEXT NOT NULL REFERENCES tasks (id),
  status     TEXT NOT NULL DEFAULT 'open',
  PRIMARY KEY (capability, task_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_capabilities_by_status ON task_capabilities (capability, status, task_id);

-- +goose StatementBegin
CREATE TRIGGER tasks_check_status BEFORE UPDATE OF status, attempt ON tasks WHEN NOT (
     (OLD.status = NEW.status AND (OLD.attempt = NEW.attempt OR (NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)))
  OR (OLD.status = 'open'     AND NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)
  OR (OLD.status = 'open'     AND NEW.status IN ('cancelled', 'expired') AND NEW.attempt = OLD.attempt)
  OR (OLD.status = 'assigned' AND NEW.status IN ('open', 'completed', 'cancelled', 'expired', 'failed') AND NEW.attempt = OLD.attempt))
BEGIN SELECT RAISE(ABORT, 'invalid change of task status'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_terms_immutable BEFORE UPDATE OF id, poster_id, title, description, budget, capabilities, origin, created_at ON tasks
BEGIN SELECT RAISE(ABORT, 'the terms of a task cannot change'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_ended_immutable BEFORE UPDATE OF worker_id, result ON tasks
WHEN OLD.status IN ('completed', 'cancelled', 'expired', 'failed')
BEGIN SELECT RAISE(ABORT, 'a task that has ended cannot change'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_rated_once BEFORE UPDATE OF rating_score ON tasks WHEN OLD.rating_score IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a task can be rated only once'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tasks_no_delete BEFORE DELETE ON tasks BEGIN SELECT RAISE(ABORT, 'tasks cannot be deleted'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER task_capabilities_sync AFTER UPDATE OF status ON tasks WHEN NEW.status <> OLD.status
BEGIN
  UPDATE task_capabilities SET status = NEW.status
  WHERE task_id = NEW.id AND capability IN (SELECT value FROM json_each(NEW.capabilities));
END;
-- +goose StatementEnd

-- The available and the held credits of an agent. last_seq is the newest transfer
-- that the row includes.
CREATE TABLE wallets (
  agent_id  TEXT    PRIMARY KEY REFERENCES agents (id),
  available INTEGER NOT NULL DEFAULT 0 CHECK (available >= 0),
  held      INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
  last_seq  INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The transfers are the source of truth about money. The accounts are issuance,
-- fees, available:AGENT, held:AGENT and escrow:TASK. The id is a natural key such as
-- payout:TASK, so a task cannot have two payouts. balance_after is the available
-- balance of the agent after the transfer. It is null if the transfer changes no
-- available account.
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
BEGIN SELECT RAISE(ABORT, 'a grant must go from issuance to an agent, once per agent'); END;
-- +goose StatementEnd
-- A transfer follows its task. The program updates the task row first. The trigger
-- then accepts only the accounts, the amount and the id that match the new state.
-- +goose StatementBegin
CREATE TRIGGER transfers_match_task BEFORE INSERT ON transfers WHEN NEW.kind <> 'grant' AND NOT EXISTS (
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
BEGIN SELECT RAISE(ABORT, 'a transfer must match the state of its task'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER transfers_check_escrow BEFORE INSERT ON transfers
WHEN NEW.debit_account GLOB 'escrow:*' AND NEW.amount >
    (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = NEW.debit_account)
  - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = NEW.debit_account)
BEGIN SELECT RAISE(ABORT, 'an escrow cannot pay more than it holds'); END;
-- +goose StatementEnd

-- A new wallet is empty. A wallet is never deleted. An update must match the new
-- transfers exactly.
-- +goose StatementBegin
CREATE TRIGGER wallets_start_empty BEFORE INSERT ON wallets WHEN NEW.available <> 0 OR NEW.held <> 0 OR NEW.last_seq <> 0
BEGIN SELECT RAISE(ABORT, 'a new wallet must be empty'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER wallets_no_delete BEFORE DELETE ON wallets BEGIN SELECT RAISE(ABORT, 'wallets cannot be deleted'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER wallets_match_transfers BEFORE UPDATE ON wallets WHEN NOT (
  NEW.agent_id = OLD.agent_id AND NEW.last_seq > OLD.last_seq
  AND NEW.available - OLD.available =
      (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = 'available:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq)
    - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = 'available:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq)
  AND NEW.held - OLD.held =
      (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = 'held:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq)
    - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = 'held:' || OLD.agent_id AND seq > OLD.last_seq AND seq <= NEW.last_seq))
BEGIN SELECT RAISE(ABORT, 'a wallet must match its transfers'); END;
-- +goose StatementEnd

-- The log of events, in commit order. seq is the cursor. AUTOINCREMENT on one writer
-- gives a sequence that a reader can follow without gaps. Deliveries refer to id. In
-- SQLite id equals seq. In PostgreSQL the program assigns seq after the commit.
CREATE TABLE events (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  id          INTEGER GENERATED ALWAYS AS (seq) VIRTUAL,
  kind        TEXT    NOT NULL,
  task_id     TEXT    REFERENCES tasks (id),
  poster_id   TEXT,
  worker_id   TEXT,
  agent_id    TEXT,
  transfer_id TEXT,
  created_at  INTEGER NOT NULL
) STRICT;

-- The log keeps no events up to seq. created_at is the newest time of a removed
-- event. The program moves the horizon before it deletes events. The horizon moves
-- only forward. It covers only events that are old and that ledger_sums includes.
-- The minimum age is one day. The triggers check for 23 hours, because clocks can
-- differ.
CREATE TABLE event_horizon (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  seq        INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
INSERT INTO event_horizon (one, seq, created_at) VALUES (1, 0, 0);

-- The credits issued and the fees earned up to an event. To get the current totals,
-- add the transfers of later events.
CREATE TABLE ledger_sums (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  seq    INTEGER NOT NULL,
  issued INTEGER NOT NULL CHECK (issued >= 0),
  fees   INTEGER NOT NULL CHECK (fees >= 0)
) STRICT;
INSERT INTO ledger_sums (one, seq, issued, fees) VALUES (1, 0, 0, 0);

-- +goose StatementBegin
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are immutable'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER events_no_delete BEFORE DELETE ON events WHEN OLD.seq > COALESCE((SELECT seq FROM event_horizon), 0)
BEGIN SELECT RAISE(ABORT, 'events after the horizon cannot be deleted'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER event_horizon_check_move BEFORE UPDATE ON event_horizon WHEN NOT (
  NEW.one = OLD.one AND NEW.seq > OLD.seq AND NEW.created_at >= OLD.created_at
  AND NEW.created_at <= (unixepoch() - 23 * 3600) * 1000000
  AND NEW.seq <= (SELECT seq FROM ledger_sums)
  AND EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
  AND NOT EXISTS (SELECT 1 FROM events WHERE seq > OLD.seq AND seq <= NEW.seq AND created_at > NEW.created_at)
  AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id > OLD.seq AND event_id <= NEW.seq))
BEGIN SELECT RAISE(ABORT, 'the event horizon can only move forward, over old events'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER event_horizon_no_insert BEFORE INSERT ON event_horizon BEGIN SELECT RAISE(ABORT, 'event_horizon must have exactly one row'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER event_horizon_no_delete BEFORE DELETE ON event_horizon BEGIN SELECT RAISE(ABORT, 'event_horizon must have exactly one row'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER ledger_sums_only_grow BEFORE UPDATE ON ledger_sums WHEN NEW.seq <= OLD.seq OR NEW.issued < OLD.issued OR NEW.fees < OLD.fees
BEGIN SELECT RAISE(ABORT, 'the ledger totals can only grow'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER ledger_sums_no_delete BEFORE DELETE ON ledger_sums BEGIN SELECT RAISE(ABORT, 'the ledger totals can only grow'); END;
-- +goose StatementEnd

-- The secret that signs webhook requests to an agent. It is encrypted with the
-- server's key.
CREATE TABLE secrets (
  agent_id       TEXT    PRIMARY KEY REFERENCES agents (id),
  encrypted      BLOB    NOT NULL,
  hint           TEXT    NOT NULL,
  previous       BLOB,
  previous_until INTEGER
) STRICT;

-- events is a JSON list of the optional events that the agent subscribes to. Every
-- webhook receives task.posted. suspended_at and suspended_reason are null while the
-- webhook is active. Few webhooks have optional events and few are suspended, so
-- partial indexes find both.
CREATE TABLE webhooks (
  agent_id         TEXT    PRIMARY KEY REFERENCES agents (id),
  url              TEXT    NOT NULL,
  events           TEXT    NOT NULL,
  status           TEXT    NOT NULL CHECK (status IN ('active', 'suspended')),
  failing_since    INTEGER,
  suspended_at     INTEGER,
  suspended_reason TEXT    CHECK (suspended_reason IN ('gone', 'failing')),
  updated_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX webhooks_with_events ON webhooks (agent_id) WHERE events <> '[]';
CREATE INDEX webhooks_suspended ON webhooks (agent_id) WHERE status = 'suspended';
-- +goose StatementBegin
CREATE TRIGGER webhooks_added AFTER INSERT ON webhooks
BEGIN UPDATE agent_capabilities SET has_webhook = 1 WHERE agent_id = NEW.agent_id; END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER webhooks_removed AFTER DELETE ON webhooks
BEGIN UPDATE agent_capabilities SET has_webhook = 0 WHERE agent_id = OLD.agent_id; END;
-- +goose StatementEnd

-- worker_id is the worker of the event. It is null for task.posted.
CREATE TABLE deliveries (
  id              TEXT    PRIMARY KEY,
  agent_id        TEXT    NOT NULL REFERENCES agents (id),
  event_id        INTEGER NOT NULL REFERENCES events (seq),
  event           TEXT    NOT NULL CHECK (event IN ('task.posted', 'task.assigned', 'task.completed', 'task.cancelled', 'task.expired')),
  task_id         TEXT    NOT NULL REFERENCES tasks (id),
  worker_id       TEXT,
  status          TEXT    NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  attempts        INTEGER NOT NULL DEFAULT 0,
  attempts_left   INTEGER NOT NULL CHECK (attempts_left >= 0),
  response_status INTEGER,
  last_error      TEXT,
  created_at      INTEGER NOT NULL,
  last_attempt_at INTEGER,
  next_attempt_at INTEGER,
  UNIQUE (event_id, agent_id)
) STRICT;
CREATE INDEX deliveries_by_agent ON deliveries (agent_id, id);
CREATE INDEX deliveries_by_status ON deliveries (agent_id, status, id);
CREATE INDEX deliveries_pending ON deliveries (id) WHERE status = 'pending';

-- The headers of the request and of the response are JSON lists.
CREATE TABLE attempts (
  delivery_id      TEXT    NOT NULL REFERENCES deliveries (id),
  number           INTEGER NOT NULL,
  started_at       INTEGER NOT NULL,
  latency_us       INTEGER NOT NULL,
  request_headers  TEXT    NOT NULL,
  response_status  INTEGER,
  response_headers TEXT    NOT NULL,
  response_body    TEXT    NOT NULL,
  error            TEXT,
  PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;

-- The server keeps responses for one day. A retry with the same key then changes
-- nothing. The response is null while the first request is in progress.
CREATE TABLE idempotency_keys (
  scope       TEXT    NOT NULL,
  key         TEXT    NOT NULL,
  fingerprint BLOB    NOT NULL,
  response    BLOB,
  task_id     TEXT,
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_task ON idempotency_keys (task_id) WHERE task_id IS NOT NULL;

-- The processes that serve this store now. SQLite has at most one.
CREATE TABLE replicas (
  id      TEXT    PRIMARY KEY,
  seen_at INTEGER NOT NULL
) STRICT;

-- The networks that registered agents recently. full_at is the time at which a
-- network has its full burst of registrations again. The rate limit needs no other
-- number.
CREATE TABLE registrants (
  network TEXT    PRIMARY KEY,
  full_at INTEGER NOT NULL
) STRICT;
CREATE INDEX registrants_by_age ON registrants (full_at);

-- The audit log of security actions. The program writes an entry in the transaction
-- of the action. Entries are immutable. The program keeps them for one day or more.
-- The trigger checks for 23 hours, because clocks can differ.
CREATE TABLE audit_entries (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  created_at INTEGER NOT NULL,
  actor      TEXT    NOT NULL,
  action     TEXT    NOT NULL,
  object     TEXT    NOT NULL,
  address    TEXT    NOT NULL,
  request_id TEXT    NOT NULL,
  outcome    TEXT    NOT NULL,
  count      INTEGER NOT NULL CHECK (count > 0)
) STRICT;
CREATE INDEX audit_entries_by_age ON audit_entries (created_at);
CREATE INDEX audit_entries_by_actor ON audit_entries (actor, seq);
-- +goose StatementBegin
CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries BEGIN SELECT RAISE(ABORT, 'the audit log is immutable'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries WHEN OLD.created_at > (unixepoch() - 23 * 3600) * 1000000
BEGIN SELECT RAISE(ABORT, 'audit entries are kept for at least one day'); END;
-- +goose StatementEnd
