-- A market of :n agents and :n tasks as the product itself would have left it:
-- agent i posted task i, and of every ten tasks six are open, two are assigned
-- and two completed, by agent i + 1. Half of the agents and of the tasks have
-- the word 'common', twenty of either have 'rare', and all have 'bench'. Times
-- are microseconds; :start is when the first task was posted, a millisecond
-- before the second. Ids are UUIDs of version 7 with that time in them.
-- Of every thousand tasks and agents one has the word 'few7' in its text, of every
-- hundred one has 'many7', and so on for other numbers. words is the search index.
-- Statements are carried out one by one, without the triggers.

CREATE TEMP TABLE plan AS
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :n)
SELECT i,
  substr(stamp, 1, 8) || '-' || substr(stamp, 9) || '-7000-8000-' || printf('%012x', i) AS task,
  '00000000-0000-7000-8000-' || printf('%012x', i) AS poster,
  '00000000-0000-7000-8000-' || printf('%012x', i % :n + 1) AS worker,
  10 + i % 90 AS budget,
  CASE WHEN i % 10 < 6 THEN 'open' WHEN i % 10 < 8 THEN 'assigned' ELSE 'completed' END AS status,
  CASE WHEN i % (:n / 20) = 0 THEN '["bench","common","rare"]' WHEN (i / 10) % 2 = 0 THEN '["bench","common"]' ELSE '["bench"]' END AS words,
  printf('few%d many%d.', i % 1000, i % 100) AS text,
  printf('"bench","%09d",', i) AS title_words,
  printf(',"few%d","many%d"]', i % 1000, i % 100) AS text_words,
  :start + i * 1000 AS at
FROM (SELECT i, printf('%012x', :start / 1000 + i) AS stamp FROM n);

INSERT INTO agents (id, name, description, capabilities, price_per_task, endpoint_url, system_prompt, owner_email, rating_sum, rating_count, completed_count, created_at, words)
SELECT poster, printf('bench-%09d', i), 'An agent of the benchmark. ' || text, words, 10, '', '', '',
  CASE WHEN completed THEN 1 + i % 5 ELSE 0 END, completed, completed, :start,
  '[' || title_words || '"an","agent","of","the","benchmark"' || text_words
FROM (SELECT *, (i + :n - 2) % :n % 10 + 1 BETWEEN 8 AND 9 AS completed FROM plan) ORDER BY i;

INSERT INTO agent_capabilities (capability, agent_id, reputation, price_per_task)
SELECT value, poster, a.reputation, a.price_per_task FROM plan, json_each(plan.words) JOIN agents a ON a.id = poster ORDER BY value, poster;

INSERT INTO api_keys (hash, agent_id, created_at) SELECT randomblob(32), poster, :start FROM plan WHERE i > :known;

INSERT INTO tasks (id, poster_id, worker_id, title, description, budget, capabilities, origin, status, attempt, lease_for, open_until, lease_until,
  result, rating_score, rated_at, created_at, accepted_at, completed_at, closed_at, words)
SELECT task, poster, CASE WHEN status <> 'open' THEN worker END, printf('bench-%09d', i), :description || ' ' || text, budget, words, 'marketplace', status,
  status <> 'open', 86400000000, at + 604800000000, CASE WHEN status = 'assigned' THEN at + 86400000000 END,
  CASE WHEN status = 'completed' THEN 'Done.' END, CASE WHEN status = 'completed' THEN 1 + i % :n % 5 END, CASE WHEN status = 'completed' THEN at END,
  at, CASE WHEN status <> 'open' THEN at END, CASE WHEN status = 'completed' THEN at END, CASE WHEN status = 'completed' THEN at END,
  '[' || title_words || '"lorem","ipsum","dolor","sit","amet"' || text_words
FROM plan ORDER BY i;

INSERT INTO task_capabilities (capability, task_id, status)
SELECT value, task, status FROM plan, json_each(words) ORDER BY value, task;

INSERT INTO task_words (word, task_id) SELECT value, tasks.id FROM tasks, json_each(tasks.words) ORDER BY value, tasks.id;

INSERT INTO agent_words (word, agent_id) SELECT value, agents.id FROM agents, json_each(agents.words) ORDER BY value, agents.id;

INSERT INTO transfers (id, kind, debit_account, credit_account, amount, balance_after, created_at)
SELECT 'grant:' || poster, 'grant', 'issuance', 'available:' || poster, :grant, :grant, :start FROM plan ORDER BY i;

INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at)
SELECT 'hold:' || task, 'hold', 'available:' || poster, 'held:' || poster, budget, task, :grant - budget, at FROM plan ORDER BY i;

INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, created_at)
SELECT 'escrow:' || task || ':1', 'escrow', 'held:' || poster, 'escrow:' || task, budget, task, at FROM plan WHERE status <> 'open' ORDER BY i;

INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at)
SELECT 'payout:' || task, 'payout', 'escrow:' || task, 'available:' || worker, budget * 90 / 100, task,
  :grant - (10 + (i % :n + 1) % 90) + budget * 90 / 100, at FROM plan WHERE status = 'completed' ORDER BY i;

INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, created_at)
SELECT 'fee:' || task, 'fee', 'escrow:' || task, 'fees', budget - budget * 90 / 100, task, at FROM plan WHERE status = 'completed' ORDER BY i;

INSERT INTO wallets (agent_id, available, held, last_seq)
SELECT p.poster, :grant - p.budget + COALESCE(w.amount, 0), CASE WHEN p.status = 'open' THEN p.budget ELSE 0 END, (SELECT MAX(seq) FROM transfers)
FROM plan p LEFT JOIN transfers w ON w.credit_account = 'available:' || p.poster AND w.kind = 'payout' ORDER BY p.i;

INSERT INTO events (kind, task_id, poster_id, created_at) SELECT 'task.posted', task, poster, at FROM plan ORDER BY i;

INSERT INTO events (kind, agent_id, transfer_id, created_at) SELECT 'wallet.changed', poster, 'hold:' || task, at FROM plan ORDER BY i;

INSERT INTO events (kind, task_id, poster_id, worker_id, created_at) SELECT 'task.accepted', task, poster, worker, at FROM plan WHERE status <> 'open' ORDER BY i;

INSERT INTO events (kind, task_id, poster_id, worker_id, created_at) SELECT 'task.completed', task, poster, worker, at FROM plan WHERE status = 'completed' ORDER BY i;

INSERT INTO events (kind, agent_id, transfer_id, created_at) SELECT 'wallet.changed', worker, 'payout:' || task, at FROM plan WHERE status = 'completed' ORDER BY i;

UPDATE ledger_sums SET seq = (SELECT MAX(seq) FROM events), issued = :n * :grant, fees = (SELECT SUM(amount) FROM transfers WHERE kind = 'fee');
