-- +goose Up
-- The schema of migrations/sqlite in the PostgreSQL dialect. That file explains the
-- tables. Comments here explain only the differences. Text keys use the collation
-- "C", so both engines sort them alike.

-- Triggers call reject_statement to reject a statement. The argument is the reason.
-- +goose StatementBegin
CREATE FUNCTION reject_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$;
-- +goose StatementEnd

CREATE TABLE agents (
  id              text   COLLATE "C" PRIMARY KEY,
  name            text   NOT NULL,
  description     text   NOT NULL,
  capabilities    text   NOT NULL CHECK (capabilities::jsonb IS NOT NULL),
  price_per_task  bigint NOT NULL CHECK (price_per_task >= 1),
  endpoint_url    text   NOT NULL,
  system_prompt   text   NOT NULL,
  owner_email     text   NOT NULL,
  rating_sum      bigint NOT NULL DEFAULT 0,
  rating_count    bigint NOT NULL DEFAULT 0,
  completed_count bigint NOT NULL DEFAULT 0,
  created_at      bigint NOT NULL,
  reputation      double precision GENERATED ALWAYS AS (CASE rating_count WHEN 0 THEN 0.0 ELSE rating_sum::double precision / rating_count END) STORED
);
CREATE INDEX agents_by_reputation ON agents (reputation, id);
CREATE INDEX agents_by_price ON agents (price_per_task, id);

CREATE TABLE agent_capabilities (
  capability     text   COLLATE "C" NOT NULL,
  agent_id       text   COLLATE "C" NOT NULL REFERENCES agents (id),
  reputation     double precision NOT NULL DEFAULT 0,
  price_per_task bigint NOT NULL DEFAULT 0,
  has_webhook    bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (capability, agent_id)
);
CREATE INDEX agent_capabilities_by_agent ON agent_capabilities (agent_id);
CREATE INDEX agent_capabilities_by_reputation ON agent_capabilities (capability, reputation, agent_id);
CREATE INDEX agent_capabilities_by_price ON agent_capabilities (capability, price_per_task, agent_id);
CREATE INDEX agent_capabilities_with_webhook ON agent_capabilities (capability, agent_id) WHERE has_webhook = 1;

-- The function locks the agent row, so the copied values stay correct until the
-- commit.
-- +goose StatementBegin
CREATE FUNCTION agent_capabilities_added() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  agent agents%ROWTYPE;
BEGIN
  SELECT * INTO agent FROM agents WHERE id = NEW.agent_id FOR NO KEY UPDATE;
  IF FOUND THEN
    NEW.reputation := agent.reputation;
    NEW.price_per_task := agent.price_per_task;
    NEW.has_webhook := CASE WHEN EXISTS (SELECT 1 FROM webhooks w WHERE w.agent_id = NEW.agent_id) THEN 1 ELSE 0 END;
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER agent_capabilities_added BEFORE INSERT ON agent_capabilities FOR EACH ROW EXECUTE FUNCTION agent_capabilities_added();
-- +goose StatementBegin
CREATE FUNCTION agent_capabilities_sync() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.reputation <> OLD.reputation OR NEW.price_per_task <> OLD.price_per_task THEN
    UPDATE agent_capabilities SET reputation = NEW.reputation, price_per_task = NEW.price_per_task WHERE agent_id = NEW.id;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER agent_capabilities_sync AFTER UPDATE OF rating_sum, rating_count, price_per_task ON agents FOR EACH ROW
EXECUTE FUNCTION agent_capabilities_sync();

CREATE TABLE api_keys (
  hash       bytea  PRIMARY KEY CHECK (length(hash) = 32),
  agent_id   text   COLLATE "C" NOT NULL REFERENCES agents (id),
  created_at bigint NOT NULL,
  revoked_at bigint
);
CREATE INDEX api_keys_by_agent ON api_keys (agent_id);

CREATE TABLE tasks (
  id             text   COLLATE "C" PRIMARY KEY,
  poster_id      text   COLLATE "C" NOT NULL REFERENCES agents (id),
  worker_id      text   COLLATE "C" REFERENCES agents (id),
  title          text   NOT NULL,
  description    text   NOT NULL,
  budget         bigint NOT NULL CHECK (budget BETWEEN 2 AND 1000000000),
  capabilities   text   NOT NULL CHECK (capabilities::jsonb IS NOT NULL),
  origin         text   NOT NULL CHECK (origin IN ('marketplace', 'direct')),
  status         text   NOT NULL CHECK (status IN ('open', 'assigned', 'completed', 'cancelled', 'expired', 'failed')),
  attempt        bigint NOT NULL DEFAULT 0,
  lapses         bigint NOT NULL DEFAULT 0,
  lease_for      bigint NOT NULL,
  open_until     bigint NOT NULL,
  lease_until    bigint,
  replica        text   COLLATE "C",
  tokens         bigint CHECK (tokens >= 0),
  result         text,
  rating_score   bigint CHECK (rating_score BETWEEN 1 AND 5),
  rating_comment text,
  rated_at       bigint,
  created_at     bigint NOT NULL,
  accepted_at    bigint,
  completed_at   bigint,
  closed_at      bigint,
  CHECK (worker_id <> poster_id),
  CHECK (status NOT IN ('assigned', 'completed') OR worker_id IS NOT NULL),
  CHECK (status <> 'open' OR worker_id IS NULL),
  CHECK ((status = 'completed') = (result IS NOT NULL)),
  CHECK (status = 'completed' OR rating_score IS NULL),
  CONSTRAINT tasks_hire_states CHECK (origin = 'marketplace' OR status IN ('assigned', 'completed', 'cancelled', 'failed'))
);
CREATE INDEX tasks_by_status ON tasks (status, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_budget ON tasks (status, budget, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_poster ON tasks (poster_id, status, id);
CREATE INDEX tasks_by_worker ON tasks (worker_id, status, id) WHERE worker_id IS NOT NULL;
CREATE INDEX tasks_open_ending ON tasks (open_until) WHERE status = 'open';
CREATE INDEX tasks_lease_ending ON tasks (lease_until) WHERE status = 'assigned';
CREATE INDEX tasks_running ON tasks (replica) WHERE status = 'assigned' AND origin = 'direct';
CREATE INDEX tasks_on_model ON tasks (created_at, poster_id, tokens) WHERE tokens IS NOT NULL;
CREATE INDEX tasks_on_model_now ON tasks (poster_id) WHERE tokens IS NOT NULL AND status = 'assigned';

CREATE TABLE task_capabilities (
  capability text COLLATE "C" NOT NULL,
  task_id    text COLLATE "C" NOT NULL REFERENCES tasks (id),
  status     text NOT NULL DEFAULT 'open',
  PRIMARY KEY (capability, task_id)
);
CREATE INDEX task_capabilities_by_status ON task_capabilities (capability, status, task_id);

CREATE TRIGGER tasks_check_status BEFORE UPDATE OF status, attempt ON tasks FOR EACH ROW WHEN (NOT (
     (OLD.status = NEW.status AND (OLD.attempt = NEW.attempt OR (NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)))
  OR (OLD.status = 'open'     AND NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)
  OR (OLD.status = 'open'     AND NEW.status IN ('cancelled', 'expired') AND NEW.attempt = OLD.attempt)
  OR (OLD.status = 'assigned' AND NEW.status IN ('open', 'completed', 'cancelled', 'expired', 'failed') AND NEW.attempt = OLD.attempt)))
EXECUTE FUNCTION reject_statement('invalid change of task status');
CREATE TRIGGER tasks_terms_immutable BEFORE UPDATE OF id, poster_id, title, description, budget, capabilities, origin, created_at ON tasks
FOR EACH ROW EXECUTE FUNCTION reject_statement('the terms of a task cannot change');
CREATE TRIGGER tasks_ended_immutable BEFORE UPDATE OF worker_id, result ON tasks FOR EACH ROW
WHEN (OLD.status IN ('completed', 'cancelled', 'expired', 'failed'))
EXECUTE FUNCTION reject_statement('a task that has ended cannot change');
CREATE TRIGGER tasks_rated_once BEFORE UPDATE OF rating_score ON tasks FOR EACH ROW WHEN (OLD.rating_score IS NOT NULL)
EXECUTE FUNCTION reject_statement('a task can be rated only once');
CREATE TRIGGER tasks_no_delete BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION reject_statement('tasks cannot be deleted');
-- +goose StatementBegin
CREATE FUNCTION task_capabilities_sync() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE task_capabilities SET status = NEW.status
  WHERE task_id = NEW.id AND capability = ANY (ARRAY(SELECT jsonb_array_elements_text(NEW.capabilities::jsonb)));
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER task_capabilities_sync AFTER UPDATE OF status ON tasks FOR EACH ROW WHEN (NEW.status <> OLD.status)
EXECUTE FUNCTION task_capabilities_sync();

-- The program locks the wallet row before it inserts transfers. Therefore the
-- numbers of the transfers have the same order as the updates of the wallet.
CREATE TABLE wallets (
  agent_id  text   COLLATE "C" PRIMARY KEY REFERENCES agents (id),
  available bigint NOT NULL DEFAULT 0 CHECK (available >= 0),
  held      bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
  last_seq  bigint NOT NULL DEFAULT 0
);

CREATE TABLE transfers (
  seq            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  id             text   COLLATE "C" NOT NULL UNIQUE,
  kind           text   NOT NULL CHECK (kind IN ('grant', 'hold', 'escrow', 'hire', 'reopen', 'payout', 'fee', 'refund')),
  debit_account  text   COLLATE "C" NOT NULL,
  credit_account text   COLLATE "C" NOT NULL,
  amount         bigint NOT NULL CHECK (amount > 0),
  task_id        text   COLLATE "C" REFERENCES tasks (id),
  balance_after  bigint CHECK (balance_after >= 0),
  created_at     bigint NOT NULL,
  CHECK ((kind = 'grant') = (task_id IS NULL)),
  CHECK ((balance_after IS NOT NULL) = (starts_with(debit_account, 'available:') OR starts_with(credit_account, 'available:')))
);
CREATE INDEX transfers_by_debit ON transfers (debit_account, seq) INCLUDE (amount);
CREATE INDEX transfers_by_credit ON transfers (credit_account, seq) INCLUDE (amount);

CREATE TRIGGER transfers_no_update BEFORE UPDATE ON transfers FOR EACH ROW EXECUTE FUNCTION reject_statement('transfers are immutable');
CREATE TRIGGER transfers_no_delete BEFORE DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION reject_statement('transfers are immutable');
CREATE TRIGGER transfers_no_truncate BEFORE TRUNCATE ON transfers EXECUTE FUNCTION reject_statement('transfers are immutable');
CREATE TRIGGER transfers_grant BEFORE INSERT ON transfers FOR EACH ROW WHEN (NEW.kind = 'grant' AND NOT (
      NEW.debit_account = 'issuance' AND starts_with(NEW.credit_account, 'available:')
  AND NEW.id = 'grant:' || substr(NEW.credit_account, 11)))
EXECUTE FUNCTION reject_statement('a grant must go from issuance to an agent, once per agent');

-- +goose StatementBegin
CREATE FUNCTION transfer_matches_task() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  t tasks;
  fits boolean;
BEGIN
  SELECT * INTO t FROM tasks WHERE id = NEW.task_id;
  fits := CASE NEW.kind
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
    END;
  IF fits IS NOT TRUE THEN
    RAISE EXCEPTION 'a transfer must match the state of its task';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
-- The update of the task locks its row. Therefore the second of two payments from
-- one escrow sees the first.
-- +goose StatementBegin
CREATE FUNCTION check_escrow_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.amount > (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = NEW.debit_account)
                - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = NEW.debit_account) THEN
    RAISE EXCEPTION 'an escrow cannot pay more than it holds';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER transfers_check_escrow BEFORE INSERT ON transfers FOR EACH ROW WHEN (starts_with(NEW.debit_account, 'escrow:'))
EXECUTE FUNCTION check_escrow_balance();
CREATE TRIGGER transfers_match_task BEFORE INSERT ON transfers FOR EACH ROW WHEN (NEW.kind <> 'grant')
EXECUTE FUNCTION transfer_matches_task();

CREATE TRIGGER wallets_start_empty BEFORE INSERT ON wallets FOR EACH ROW WHEN (NEW.available <> 0 OR NEW.held <> 0 OR NEW.last_seq <> 0)
EXECUTE FUNCTION reject_statement('a new wallet must be empty');
CREATE TRIGGER wallets_no_delete BEFORE DELETE ON wallets FOR EACH ROW EXECUTE FUNCTION reject_statement('wallets cannot be deleted');
-- +goose StatementBegin
CREATE FUNCTION net_transfers(account text, after_seq bigint, to_seq bigint) RETURNS numeric LANGUAGE sql STABLE AS $$
  SELECT (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = account AND seq > after_seq AND seq <= to_seq)
       - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = account AND seq > after_seq AND seq <= to_seq)
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION wallet_matches_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.agent_id = OLD.agent_id AND NEW.last_seq > OLD.last_seq
    AND NEW.available - OLD.available = net_transfers('available:' || OLD.agent_id, OLD.last_seq, NEW.last_seq)
    AND NEW.held - OLD.held = net_transfers('held:' || OLD.agent_id, OLD.last_seq, NEW.last_seq) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'a wallet must match its transfers';
END $$;
-- +goose StatementEnd
CREATE TRIGGER wallets_match_transfers BEFORE UPDATE ON wallets FOR EACH ROW EXECUTE FUNCTION wallet_matches_transfers();

-- An insert sets id. The program assigns seq, the cursor, after the commit.
-- Transactions commit in a different order than they insert. A reader that follows
-- id would skip an event that commits late.
CREATE TABLE events (
  id          bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  seq         bigint,
  kind        text   NOT NULL,
  task_id     text   COLLATE "C" REFERENCES tasks (id),
  poster_id   text   COLLATE "C",
  worker_id   text   COLLATE "C",
  agent_id    text   COLLATE "C",
  transfer_id text   COLLATE "C",
  created_at  bigint NOT NULL
);
-- The index is partial. Therefore PostgreSQL does not treat the update of seq as an
-- update of a key, which would need a stronger lock.
CREATE UNIQUE INDEX events_by_seq ON events (seq) WHERE seq IS NOT NULL;
CREATE INDEX events_without_cursor ON events (id) WHERE seq IS NULL;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events FOR EACH ROW WHEN (OLD.seq IS NOT NULL OR NEW.seq IS NULL)
EXECUTE FUNCTION reject_statement('events are immutable');
CREATE TRIGGER events_only_seq_changes BEFORE UPDATE OF id, kind, task_id, poster_id, worker_id, agent_id, transfer_id, created_at ON events
FOR EACH ROW EXECUTE FUNCTION reject_statement('events are immutable');

-- The last cursor. assign_cursors locks this row until its commit. Therefore a reader
-- that sees a cursor also sees all smaller ones.
CREATE TABLE event_head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  seq bigint  NOT NULL
);
INSERT INTO event_head (seq) VALUES (0);
-- +goose StatementBegin
CREATE FUNCTION assign_cursors(most bigint, notify boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  head bigint;
  numbered bigint;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM events WHERE seq IS NULL) THEN RETURN 0; END IF;
  SELECT seq INTO head FROM event_head FOR UPDATE;
  UPDATE events e SET seq = head + b.place
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS place
        FROM (SELECT id FROM events WHERE seq IS NULL ORDER BY id LIMIT most) a) b
  WHERE e.id = b.id;
  GET DIAGNOSTICS numbered = ROW_COUNT;
  IF numbered > 0 THEN
    UPDATE event_head SET seq = head + numbered;
    IF notify THEN PERFORM pg_notify('agentmarket_events', ''); END IF;
  END IF;
  RETURN numbered;
END $$;
-- +goose StatementEnd

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

-- The function checks all rows of a DELETE statement at once.
-- +goose StatementBegin
CREATE FUNCTION check_events_deletable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM deleted WHERE seq IS NULL OR seq > COALESCE((SELECT seq FROM event_horizon), 0)) THEN
    RAISE EXCEPTION 'events after the horizon cannot be deleted';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER events_no_delete AFTER DELETE ON events REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION check_events_deletable();
CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events EXECUTE FUNCTION reject_statement('events after the horizon cannot be deleted');
-- +goose StatementBegin
CREATE FUNCTION event_horizon_check_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.one = OLD.one AND NEW.seq > OLD.seq AND NEW.created_at >= OLD.created_at
    AND NEW.created_at <= (EXTRACT(epoch FROM clock_timestamp())::bigint - 23 * 3600) * 1000000
    AND NEW.seq <= (SELECT seq FROM ledger_sums)
    AND EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
    AND NOT EXISTS (SELECT 1 FROM events WHERE seq > OLD.seq AND seq <= NEW.seq AND created_at > NEW.created_at)
    AND NOT EXISTS (SELECT 1 FROM events e JOIN deliveries d ON d.event_id = e.id WHERE e.seq > OLD.seq AND e.seq <= NEW.seq) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the event horizon can only move forward, over old events';
END $$;
-- +goose StatementEnd
CREATE TRIGGER event_horizon_check_move BEFORE UPDATE ON event_horizon FOR EACH ROW EXECUTE FUNCTION event_horizon_check_move();
CREATE TRIGGER event_horizon_no_insert BEFORE INSERT ON event_horizon FOR EACH ROW EXECUTE FUNCTION reject_statement('event_horizon must have exactly one row');
CREATE TRIGGER event_horizon_no_delete BEFORE DELETE ON event_horizon FOR EACH ROW EXECUTE FUNCTION reject_statement('event_horizon must have exactly one row');
CREATE TRIGGER event_horizon_no_truncate BEFORE TRUNCATE ON event_horizon EXECUTE FUNCTION reject_statement('event_horizon must have exactly one row');
CREATE TRIGGER ledger_sums_only_grow BEFORE UPDATE ON ledger_sums FOR EACH ROW WHEN (NEW.seq <= OLD.seq OR NEW.issued < OLD.issued OR NEW.fees < OLD.fees)
EXECUTE FUNCTION reject_statement('the ledger totals can only grow');
CREATE TRIGGER ledger_sums_no_delete BEFORE DELETE ON ledger_sums FOR EACH ROW EXECUTE FUNCTION reject_statement('the ledger totals can only grow');
CREATE TRIGGER ledger_sums_no_truncate BEFORE TRUNCATE ON ledger_sums EXECUTE FUNCTION reject_statement('the ledger totals can only grow');

CREATE TABLE secrets (
  agent_id       text   COLLATE "C" PRIMARY KEY REFERENCES agents (id),
  encrypted      bytea  NOT NULL,
  hint           text   NOT NULL,
  previous       bytea,
  previous_until bigint
);

CREATE TABLE webhooks (
  agent_id         text   COLLATE "C" PRIMARY KEY REFERENCES agents (id),
  url              text   NOT NULL,
  events           text   NOT NULL,
  status           text   NOT NULL CHECK (status IN ('active', 'suspended')),
  failing_since    bigint,
  suspended_at     bigint,
  suspended_reason text   CHECK (suspended_reason IN ('gone', 'failing')),
  updated_at       bigint NOT NULL
);
CREATE INDEX webhooks_with_events ON webhooks (agent_id) WHERE events <> '[]';
CREATE INDEX webhooks_suspended ON webhooks (agent_id) WHERE status = 'suspended';
-- +goose StatementBegin
CREATE FUNCTION webhooks_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE agent_capabilities SET has_webhook = 1 WHERE agent_id = NEW.agent_id;
  ELSE
    UPDATE agent_capabilities SET has_webhook = 0 WHERE agent_id = OLD.agent_id;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER webhooks_changed AFTER INSERT OR DELETE ON webhooks FOR EACH ROW EXECUTE FUNCTION webhooks_changed();

CREATE TABLE deliveries (
  id              text   COLLATE "C" PRIMARY KEY,
  agent_id        text   COLLATE "C" NOT NULL REFERENCES agents (id),
  event_id        bigint NOT NULL REFERENCES events (id),
  event           text   NOT NULL CHECK (event IN ('task.posted', 'task.assigned', 'task.completed', 'task.cancelled', 'task.expired')),
  task_id         text   COLLATE "C" NOT NULL REFERENCES tasks (id),
  worker_id       text   COLLATE "C",
  status          text   NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  attempts        bigint NOT NULL DEFAULT 0,
  attempts_left   bigint NOT NULL CHECK (attempts_left >= 0),
  response_status bigint,
  last_error      text,
  created_at      bigint NOT NULL,
  last_attempt_at bigint,
  next_attempt_at bigint,
  UNIQUE (event_id, agent_id)
);
CREATE INDEX deliveries_by_agent ON deliveries (agent_id, id);
CREATE INDEX deliveries_by_status ON deliveries (agent_id, status, id);
CREATE INDEX deliveries_pending ON deliveries (id) WHERE status = 'pending';

CREATE TABLE attempts (
  delivery_id      text   COLLATE "C" NOT NULL REFERENCES deliveries (id),
  number           bigint NOT NULL,
  started_at       bigint NOT NULL,
  latency_us       bigint NOT NULL,
  request_headers  text   NOT NULL,
  response_status  bigint,
  response_headers text   NOT NULL,
  response_body    text   NOT NULL,
  error            text,
  PRIMARY KEY (delivery_id, number)
);

CREATE TABLE idempotency_keys (
  scope       text   COLLATE "C" NOT NULL,
  key         text   COLLATE "C" NOT NULL,
  fingerprint bytea  NOT NULL,
  response    bytea,
  task_id     text   COLLATE "C",
  created_at  bigint NOT NULL,
  PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_task ON idempotency_keys (task_id) WHERE task_id IS NOT NULL;

-- seen_at is the time of the last heartbeat.
CREATE TABLE replicas (
  id      text   COLLATE "C" PRIMARY KEY,
  seen_at bigint NOT NULL
);

CREATE TABLE registrants (
  network text   COLLATE "C" PRIMARY KEY,
  full_at bigint NOT NULL
);
CREATE INDEX registrants_by_age ON registrants (full_at);

-- The recent use of callers at each process. A process adds one row each time it
-- shares its counts with the others. The table is unlogged. After a crash it is
-- empty, and the counts are complete again within a second.
CREATE UNLOGGED TABLE usage (
  replica text     COLLATE "C" NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
  round   bigint   NOT NULL,
  callers text[]   NOT NULL,
  used    bigint[] NOT NULL,
  PRIMARY KEY (replica, round)
);

CREATE TABLE audit_entries (
  seq        bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  created_at bigint NOT NULL,
  actor      text   COLLATE "C" NOT NULL,
  action     text   COLLATE "C" NOT NULL,
  object     text   NOT NULL,
  address    text   NOT NULL,
  request_id text   NOT NULL,
  outcome    text   NOT NULL,
  count      bigint NOT NULL CHECK (count > 0)
);
CREATE INDEX audit_entries_by_age ON audit_entries (created_at);
CREATE INDEX audit_entries_by_actor ON audit_entries (actor, seq);
CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries FOR EACH ROW EXECUTE FUNCTION reject_statement('the audit log is immutable');
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries FOR EACH ROW
WHEN (OLD.created_at > (EXTRACT(epoch FROM clock_timestamp())::bigint - 23 * 3600) * 1000000)
EXECUTE FUNCTION reject_statement('audit entries are kept for at least one day');
CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON audit_entries EXECUTE FUNCTION reject_statement('the audit log is immutable');
