-- +goose Up
-- The schema of migrations/sqlite in PostgreSQL's dialect. Times are Unix
-- microseconds, money is whole credits. What the marketplace promises about money
-- is refused here by itself, whatever the program above does.

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

-- One row per agent and capability: who is told of a task, and the list filter.
CREATE TABLE agent_capabilities (
  capability text COLLATE "C" NOT NULL,
  agent_id   text COLLATE "C" NOT NULL REFERENCES agents (id),
  PRIMARY KEY (capability, agent_id)
);
CREATE INDEX agent_capabilities_by_agent ON agent_capabilities (agent_id);

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
  result         text,
  rating_score   bigint CHECK (rating_score BETWEEN 1 AND 5),
  rating_comment text,
  rated_at       bigint,
  created_at     bigint NOT NULL,
  accepted_at    bigint,
  completed_at   bigint,
  closed_at      bigint,
  replica        text COLLATE "C",
  CHECK (worker_id <> poster_id),
  CHECK (status NOT IN ('assigned', 'completed') OR worker_id IS NOT NULL),
  CHECK (status <> 'open' OR worker_id IS NULL),
  CHECK ((status = 'completed') = (result IS NOT NULL)),
  CHECK (status = 'completed' OR rating_score IS NULL),
  CHECK (origin = 'marketplace' OR status IN ('assigned', 'completed', 'failed'))
);
CREATE INDEX tasks_by_status ON tasks (status, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_budget ON tasks (budget, id) WHERE origin = 'marketplace';
CREATE INDEX tasks_by_poster ON tasks (poster_id, id);
CREATE INDEX tasks_by_worker ON tasks (worker_id, id) WHERE worker_id IS NOT NULL;
CREATE INDEX tasks_open_ending ON tasks (open_until) WHERE status = 'open';
CREATE INDEX tasks_lease_ending ON tasks (lease_until) WHERE status = 'assigned';
CREATE INDEX tasks_running ON tasks (replica) WHERE status = 'assigned' AND origin = 'direct';

CREATE TABLE task_capabilities (
  capability text COLLATE "C" NOT NULL,
  task_id    text COLLATE "C" NOT NULL REFERENCES tasks (id),
  PRIMARY KEY (capability, task_id)
);
CREATE INDEX task_capabilities_by_task ON task_capabilities (task_id);

-- refuse is what a trigger calls that lets nothing pass; its argument is why.
-- +goose StatementBegin
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$;
-- +goose StatementEnd

CREATE TRIGGER tasks_move BEFORE UPDATE OF status, attempt ON tasks FOR EACH ROW WHEN (NOT (
     (OLD.status = NEW.status AND (OLD.attempt = NEW.attempt OR (NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)))
  OR (OLD.status = 'open'     AND NEW.status = 'assigned' AND NEW.attempt = OLD.attempt + 1)
  OR (OLD.status = 'open'     AND NEW.status IN ('cancelled', 'expired') AND NEW.attempt = OLD.attempt)
  OR (OLD.status = 'assigned' AND NEW.status IN ('open', 'completed', 'cancelled', 'expired', 'failed') AND NEW.attempt = OLD.attempt)))
EXECUTE FUNCTION refuse('illegal move of a task');
CREATE TRIGGER tasks_frozen BEFORE UPDATE OF id, poster_id, title, description, budget, capabilities, origin, created_at ON tasks
FOR EACH ROW EXECUTE FUNCTION refuse('what a task asks for is fixed');
CREATE TRIGGER tasks_done BEFORE UPDATE OF worker_id, result ON tasks FOR EACH ROW
WHEN (OLD.status IN ('completed', 'cancelled', 'expired', 'failed'))
EXECUTE FUNCTION refuse('a task that has ended is fixed');
CREATE TRIGGER tasks_rated_once BEFORE UPDATE OF rating_score ON tasks FOR EACH ROW WHEN (OLD.rating_score IS NOT NULL)
EXECUTE FUNCTION refuse('a task is rated once');
CREATE TRIGGER tasks_kept BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION refuse('tasks are kept');

-- The spendable and the set-aside credits of an agent. last_seq is the newest
-- transfer that the row counts. The row is locked before its transfers are
-- numbered, so that they are numbered in the order that it counts them.
CREATE TABLE wallets (
  agent_id  text   COLLATE "C" PRIMARY KEY REFERENCES agents (id),
  available bigint NOT NULL DEFAULT 0 CHECK (available >= 0),
  held      bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
  last_seq  bigint NOT NULL DEFAULT 0
);

-- The truth about money. Accounts are issuance, fees, available:AGENT,
-- held:AGENT and escrow:TASK; id is natural (payout:TASK), so that a second
-- payout of a task cannot exist. balance_after is what the agent can spend
-- after the transfer, null when it leaves every available account alone.
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

CREATE TRIGGER transfers_no_update BEFORE UPDATE ON transfers FOR EACH ROW EXECUTE FUNCTION refuse('transfers are immutable');
CREATE TRIGGER transfers_no_delete BEFORE DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION refuse('transfers are immutable');
CREATE TRIGGER transfers_grant BEFORE INSERT ON transfers FOR EACH ROW WHEN (NEW.kind = 'grant' AND NOT (
      NEW.debit_account = 'issuance' AND starts_with(NEW.credit_account, 'available:')
  AND NEW.id = 'grant:' || substr(NEW.credit_account, 11)))
EXECUTE FUNCTION refuse('a grant goes from issuance to an agent, once');

-- The money of a task moves as the task did: the task's row is changed first,
-- and only the accounts, the amount and the id that its state calls for pass.
-- +goose StatementBegin
CREATE FUNCTION transfer_follows_task() RETURNS trigger LANGUAGE plpgsql AS $$
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
    RAISE EXCEPTION 'a transfer must follow its task';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
-- The task's row is locked by its change, so that of two payments from one escrow
-- the second sees the first.
-- +goose StatementBegin
CREATE FUNCTION escrow_is_covered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.amount > (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = NEW.debit_account)
                - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = NEW.debit_account) THEN
    RAISE EXCEPTION 'an escrow cannot pay what it does not hold';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER transfers_covered BEFORE INSERT ON transfers FOR EACH ROW WHEN (starts_with(NEW.debit_account, 'escrow:'))
EXECUTE FUNCTION escrow_is_covered();
CREATE TRIGGER transfers_follow_task BEFORE INSERT ON transfers FOR EACH ROW WHEN (NEW.kind <> 'grant')
EXECUTE FUNCTION transfer_follows_task();

-- A wallet is born empty, is kept, and changes by exactly what new transfers say.
CREATE TRIGGER wallets_start_empty BEFORE INSERT ON wallets FOR EACH ROW WHEN (NEW.available <> 0 OR NEW.held <> 0 OR NEW.last_seq <> 0)
EXECUTE FUNCTION refuse('a new wallet is empty');
CREATE TRIGGER wallets_kept BEFORE DELETE ON wallets FOR EACH ROW EXECUTE FUNCTION refuse('wallets are kept');
-- +goose StatementBegin
CREATE FUNCTION moved(account text, after_seq bigint, to_seq bigint) RETURNS numeric LANGUAGE sql STABLE AS $$
  SELECT (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = account AND seq > after_seq AND seq <= to_seq)
       - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = account AND seq > after_seq AND seq <= to_seq)
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION wallet_is_explained() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.agent_id = OLD.agent_id AND NEW.last_seq > OLD.last_seq
    AND NEW.available - OLD.available = moved('available:' || OLD.agent_id, OLD.last_seq, NEW.last_seq)
    AND NEW.held - OLD.held = moved('held:' || OLD.agent_id, OLD.last_seq, NEW.last_seq) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'a wallet changes only by a transfer';
END $$;
-- +goose StatementEnd
CREATE TRIGGER wallets_explained BEFORE UPDATE ON wallets FOR EACH ROW EXECUTE FUNCTION wallet_is_explained();

-- What happened. id is given when an event is written, seq, the cursor, once it
-- is committed: transactions commit in another order than they write in, and a
-- reader of ids would skip what commits late.
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
-- It is partial, so that giving a number is no change of a key.
CREATE UNIQUE INDEX events_by_seq ON events (seq) WHERE seq IS NOT NULL;
CREATE INDEX events_unnumbered ON events (id) WHERE seq IS NULL;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events FOR EACH ROW WHEN (OLD.seq IS NOT NULL OR NEW.seq IS NULL)
EXECUTE FUNCTION refuse('events are immutable');
CREATE TRIGGER events_only_numbered BEFORE UPDATE OF id, kind, task_id, poster_id, worker_id, agent_id, transfer_id, created_at ON events
FOR EACH ROW EXECUTE FUNCTION refuse('events are immutable');

-- The last number given. Who gives numbers holds this row until they are
-- committed: a reader that sees a number sees all below it.
CREATE TABLE event_head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  seq bigint  NOT NULL
);
INSERT INTO event_head (seq) VALUES (0);
-- +goose StatementBegin
CREATE FUNCTION number_events(most bigint, notify boolean) RETURNS bigint LANGUAGE plpgsql AS $$
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

-- The secret that signs what is sent to an agent; sealed with the server's key.
CREATE TABLE secrets (
  agent_id  text   COLLATE "C" PRIMARY KEY REFERENCES agents (id),
  sealed    bytea  NOT NULL,
  hint      text   NOT NULL,
  old       bytea,
  old_until bigint
);

CREATE TABLE webhooks (
  agent_id      text   COLLATE "C" PRIMARY KEY REFERENCES agents (id),
  url           text   NOT NULL,
  status        text   NOT NULL CHECK (status IN ('active', 'suspended')),
  failing_since bigint,
  updated_at    bigint NOT NULL
);

CREATE TABLE deliveries (
  id              text   COLLATE "C" PRIMARY KEY,
  agent_id        text   COLLATE "C" NOT NULL REFERENCES agents (id),
  event_id        bigint NOT NULL REFERENCES events (id),
  task_id         text   COLLATE "C" NOT NULL REFERENCES tasks (id),
  status          text   NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  attempts        bigint NOT NULL DEFAULT 0,
  tries_left      bigint NOT NULL CHECK (tries_left >= 0),
  response_status bigint,
  last_error      text,
  created_at      bigint NOT NULL,
  last_attempt_at bigint,
  next_attempt_at bigint,
  UNIQUE (event_id, agent_id)
);
CREATE INDEX deliveries_by_agent ON deliveries (agent_id, id);

CREATE TABLE attempts (
  delivery_id     text   COLLATE "C" NOT NULL REFERENCES deliveries (id),
  number          bigint NOT NULL,
  started_at      bigint NOT NULL,
  latency_us      bigint NOT NULL,
  response_status bigint,
  error           text,
  response_body   text   NOT NULL DEFAULT '',
  PRIMARY KEY (delivery_id, number)
);

-- Answers kept for a day, so that a retry with the same key changes nothing.
-- A null answer is an effect that is still under way.
CREATE TABLE idempotency_keys (
  scope       text   COLLATE "C" NOT NULL,
  key         text   COLLATE "C" NOT NULL,
  fingerprint bytea  NOT NULL,
  answer      bytea,
  task_id     text   COLLATE "C",
  created_at  bigint NOT NULL,
  PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_task ON idempotency_keys (task_id) WHERE task_id IS NOT NULL;

-- The processes that serve this market now, by when they were last heard of.
CREATE TABLE replicas (
  id      text   COLLATE "C" PRIMARY KEY,
  seen_at bigint NOT NULL
);
