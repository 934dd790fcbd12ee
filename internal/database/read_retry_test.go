package database_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestRead_retriesWhileUnavailable checks that all forms of reads are retried while
// PostgreSQL is unreachable, and return UNAVAILABLE after a while. A cancelled read
// returns at once, and so does Ping.
func TestRead_retriesWhileUnavailable(t *testing.T) {
	t.Parallel()
	proxy, address := newProxy(t)
	db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return errors.Join(insertAgent(tx, "a"), insertAgent(tx, "b")) }))
	reads := map[string]func(context.Context) (int64, error){
		"find": func(ctx context.Context) (int64, error) {
			var agents []models.Agent
			err := db.Read(ctx).Find(&agents).Error
			return int64(len(agents)), err
		},
		"count": func(ctx context.Context) (n int64, err error) {
			return n, db.Read(ctx).Model(&models.Agent{}).Count(&n).Error
		},
		"scan": func(ctx context.Context) (int64, error) {
			var ids []string
			err := db.Read(ctx).Raw("SELECT id FROM agents").Scan(&ids).Error
			return int64(len(ids)), err
		},
		"row": func(ctx context.Context) (n int64, err error) {
			return n, db.Read(ctx).Raw("SELECT COUNT(*) FROM agents").Row().Scan(&n)
		},
	}
	proxy.setDown(true)
	var reading sync.WaitGroup
	for name, read := range reads {
		reading.Go(func() {
			if n, err := read(t.Context()); n != 2 || err != nil {
				t.Errorf("%s: %d rows, %v", name, n, err)
			}
		})
	}
	for range 3 * len(reads) { // each read was retried more than once
		<-proxy.rejected
	}
	if db.Ping(t.Context()) == nil {
		t.Error("Ping succeeded")
	}
	proxy.setDown(false)
	reading.Wait()

	proxy.setDown(true)
	for name, read := range reads {
		ctx, cancel := context.WithCancelCause(t.Context())
		errCancelled := errors.New("cancelled")
		go func() {
			<-proxy.rejected
			cancel(errCancelled)
		}()
		if _, err := read(ctx); err == nil || models.CodeOf(err) == models.Unavailable {
			t.Errorf("%s, cancelled: %v", name, err)
		}
		reading.Go(func() {
			if _, err := read(t.Context()); name != "row" && models.CodeOf(err) != models.Unavailable || err == nil {
				t.Errorf("%s: %v, want UNAVAILABLE", name, err)
			}
		})
	}
	reading.Wait()
}
