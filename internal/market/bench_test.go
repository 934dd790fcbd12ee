package market_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// BenchmarkPost measures Post with 32 concurrent callers, 1,000 posters and a webhook. On
// PostgreSQL it compares it with raw SQL that writes the same rows in one round trip:
//
//	go run ./internal/test/testservices go test -run '^$' -bench Post -cpu 32 -count 6 ./internal/market
func BenchmarkPost(b *testing.B) {
	address := services.NewDatabase(b)
	var hooks *webhooks.Webhooks
	m := markettest.NewWithDatabase(b, address, func(deps *market.Deps) {
		hooks = webhooks.New(webhooks.Options{DB: deps.DB, Cipher: deps.Cipher, Now: deps.Now, Logger: deps.Logger})
		deps.Webhooks = hooks
	})
	m.Settings.StartingCredits = models.MaxBudget
	posters := make([]auth.Actor, 1000)
	for i := range posters {
		posters[i] = m.NewAgent()
	}
	testutil.Must(b, m.DB.Write(b.Context(), func(tx *database.Tx) error {
		_, _, err := hooks.Subscribe(tx, posters[0].AgentID, "https://hook.example.com", nil)
		return err
	}))
	var next atomic.Int64
	in := market.PostTaskInput{Title: "Task", Description: "Do it.", Budget: 2, RequiredCapabilities: []string{"code", "go"}}
	b.Run("market", func(b *testing.B) {
		benchParallel(b, func(ctx context.Context) error {
			_, err := m.Post(ctx, posters[next.Add(1)%1000], in)
			return err
		})
	})
	if !services.OnPostgres() {
		return
	}
	config, err := pgxpool.ParseConfig(address)
	testutil.Must(b, err)
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	testutil.Must(b, err)
	defer pool.Close()
	b.Run("by_hand", func(b *testing.B) {
		benchParallel(b, func(ctx context.Context) error { return postWithRawSQL(ctx, pool, posters[next.Add(1)%1000].AgentID) })
	})
}

// benchParallel measures concurrent calls of fn; -cpu sets their number.
func benchParallel(b *testing.B, fn func(context.Context) error) {
	b.Helper()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := fn(b.Context()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
}

// postWithRawSQL writes the rows of a post in one round trip.
func postWithRawSQL(ctx context.Context, pool *pgxpool.Pool, poster string) error {
	id, now := uuid.Must(uuid.NewV7()).String(), time.Now().UnixMicro()
	hold, available, held := "hold:"+id, "available:"+poster, "held:"+poster
	const budget = 2
	var batch pgx.Batch
	batch.Queue("BEGIN")
	batch.Queue(`INSERT INTO tasks (id, poster_id, title, description, budget, capabilities, origin, status, lease_for, open_until, created_at)
		VALUES ($1, $2, 'Task', 'Do it.', $3, '["code","go"]', 'marketplace', 'open', 1, $4, $4)`, id, poster, budget, now)
	for _, capability := range []string{"code", "go"} {
		batch.Queue("INSERT INTO task_capabilities (capability, task_id) VALUES ($1, $2)", capability, id)
	}
	batch.Queue("INSERT INTO events (kind, task_id, poster_id, created_at) VALUES ('task.posted', $1, $2, $3)", id, poster, now)
	batch.Queue("INSERT INTO events (kind, agent_id, transfer_id, created_at) VALUES ('wallet.changed', $1, $2, $3)", poster, hold, now)
	batch.Queue(`INSERT INTO river_job (kind, queue, max_attempts, args)
		SELECT 'webhook_match', 'matches', 1, jsonb_build_object('event_id', currval('events_id_seq') - 1, 'task_id', $1::text, 'event', 'task.posted')
		WHERE EXISTS (SELECT 1 FROM webhooks)`, id)
	batch.Queue(`INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at)
		SELECT $1, 'hold', $2, $3, $4::bigint, $5, available - $4::bigint, $6 FROM wallets WHERE agent_id = $7 AND available >= $4 FOR NO KEY UPDATE`,
		hold, available, held, budget, id, now, poster)
	batch.Queue(`UPDATE wallets SET available = available - $1, held = held + $1, last_seq = (SELECT seq FROM transfers WHERE id = $2)
		WHERE agent_id = $3`, budget, hold, poster)
	batch.Queue("COMMIT")
	if err := pool.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("post by hand: %w", err)
	}
	return nil
}
