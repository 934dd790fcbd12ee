package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// bundle is a store on a new database, and an operation that counts its runs.
type bundle struct {
	*idempotency.Store
	db    *database.DB
	clock atomic.Int64 // nanoseconds that have passed
	runs  atomic.Int32
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	db, err := database.Open(t.Context(), services.NewDatabase(t), slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	cipher, err := auth.NewCipher([]byte("a key for tests only"))
	testutil.Must(t, err)
	b := &bundle{db: db}
	start := time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)
	b.Store = idempotency.NewStore(db, cipher, func() time.Time { return start.Add(time.Duration(b.clock.Load())) })
	return b
}

// run runs the operation, which returns "secret response".
func (b *bundle) run(ctx context.Context, scope, operation, input string) (string, error) {
	return idempotency.Run(ctx, b.Store, scope, operation, input, func(*database.Tx) (string, error) {
		b.runs.Add(1)
		return "secret response", nil
	})
}

// withKey returns a context with a request that has a key.
func withKey(ctx context.Context, key string) context.Context {
	return auth.WithRequest(ctx, &auth.Request{IdempotencyKey: key})
}

func wantCode(t *testing.T, err error, want models.Code) {
	t.Helper()
	if err == nil || models.CodeOf(err) != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("without a key every request runs", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		for range 2 {
			_, err := b.run(t.Context(), "scope", "operation", "input")
			testutil.Must(t, err)
		}
		testutil.Equal(t, "runs", b.runs.Load(), 2)
	})
	t.Run("concurrent requests with one key run once", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		var replayed atomic.Int32
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				ctx := withKey(t.Context(), "k")
				response, err := b.run(ctx, "scope", "operation", "input")
				if err != nil || response != "secret response" {
					t.Errorf("got response %q, error %v", response, err)
				}
				if auth.RequestFrom(ctx).Replayed.Load() {
					replayed.Add(1)
				}
			})
		}
		group.Wait()
		testutil.Equal(t, "runs", b.runs.Load(), 1)
		testutil.Equal(t, "replays", replayed.Load(), 19)
	})
	t.Run("a key belongs to one operation and input in one scope, for 24 hours", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		ctx := withKey(t.Context(), "k")
		_, err := b.run(ctx, "scope", "operation", "input")
		testutil.Must(t, err)
		_, err = b.run(ctx, "scope", "operation", "other input")
		wantCode(t, err, models.IdempotencyReused)
		_, err = b.run(ctx, "scope", "other operation", "input")
		wantCode(t, err, models.IdempotencyReused)
		_, err = b.run(ctx, "other scope", "operation", "other input")
		testutil.Must(t, err)
		b.clock.Add(int64(idempotency.KeyTTL))
		_, err = b.run(ctx, "scope", "operation", "other input")
		testutil.Must(t, err)
		testutil.Equal(t, "runs", b.runs.Load(), 3)
	})
	t.Run("an error leaves the key unused", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		ctx, errFailed := withKey(t.Context(), "k"), errors.New("failed")
		_, err := idempotency.Run(ctx, b.Store, "scope", "operation", "input", func(*database.Tx) (string, error) { return "", errFailed })
		if !errors.Is(err, errFailed) {
			t.Errorf("got error %v", err)
		}
		_, err = b.run(ctx, "scope", "operation", "other input")
		testutil.Must(t, err)
	})
	t.Run("malformed keys are rejected", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		for _, key := range []string{strings.Repeat("k", 256), "\xff", "a\nb"} {
			_, err := b.run(withKey(t.Context(), key), "scope", "operation", "input")
			wantCode(t, err, models.InvalidInput)
		}
		testutil.Equal(t, "runs", b.runs.Load(), 0)
	})
	t.Run("responses are stored encrypted", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		_, err := b.run(withKey(t.Context(), "k"), "scope", "operation", "input")
		testutil.Must(t, err)
		var row models.IdempotencyKey
		testutil.Must(t, b.db.Read(t.Context()).Take(&row).Error)
		if len(row.Response) == 0 || bytes.Contains(row.Response, []byte("secret")) {
			t.Errorf("the stored response is %q", row.Response)
		}
	})
}

func TestStore_Used(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	_, err := b.run(withKey(t.Context(), "k"), "scope", "operation", "input")
	testutil.Must(t, err)
	for _, row := range []struct {
		scope, key string
		want       bool
	}{{"scope", "k", true}, {"scope", "other", false}, {"other scope", "k", false}, {"scope", "", false}} {
		used, err := b.Used(withKey(t.Context(), row.key), row.scope)
		testutil.Must(t, err)
		testutil.Equal(t, row.key+" in "+row.scope, used, row.want)
	}
	_, err = b.Used(withKey(t.Context(), "\xff"), "scope")
	wantCode(t, err, models.InvalidInput)
	b.clock.Add(int64(idempotency.KeyTTL))
	used, err := b.Used(withKey(t.Context(), "k"), "scope")
	testutil.Must(t, err)
	testutil.Equal(t, "expired key", used, false)
}

// TestClaim_twoTransactions: an operation of two transactions. Between them other requests with the key
// get CONFLICT and learn the task; afterwards they get the stored error.
func TestClaim_twoTransactions(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ctx := withKey(t.Context(), "k")
	claim, err := b.NewClaim(ctx, "scope", "operation", "input")
	testutil.Must(t, err)
	acquire := func() (response *idempotency.Response[string], c *idempotency.Claim, err error) {
		c, err = b.NewClaim(ctx, "scope", "operation", "input")
		testutil.Must(t, err)
		err = b.db.Write(ctx, func(tx *database.Tx) (err error) {
			response, err = idempotency.Acquire[string](ctx, tx, c)
			return err
		})
		return response, c, err
	}
	testutil.Must(t, b.db.Write(ctx, func(tx *database.Tx) error {
		response, err := idempotency.Acquire[string](ctx, tx, claim)
		if response != nil {
			t.Errorf("a new key has the response %v", response)
		}
		return errors.Join(err, claim.BindTask(tx, "task"))
	}))
	_, second, err := acquire()
	wantCode(t, err, models.Conflict)
	if taskID, ok := second.RunningTask(); !ok || taskID != "task" {
		t.Errorf("the running task is %q, %t", taskID, ok)
	}
	testutil.Must(t, b.db.Write(ctx, func(tx *database.Tx) error {
		found, err := b.ForTask(tx, "task")
		if err != nil || found == nil {
			t.Errorf("the claim of the task is %v, %v", found, err)
		}
		locked, err := claim.Lock(tx)
		if err != nil || locked == nil {
			t.Errorf("the locked claim is %v, %v", locked, err)
		}
		return idempotency.Save(tx, found, idempotency.Response[string]{Error: models.Errorf(models.ExecutionFailed, "no result")})
	}))
	response, _, err := acquire()
	testutil.Must(t, err)
	_, err = response.Unpack()
	wantCode(t, err, models.ExecutionFailed)

	b.clock.Add(int64(idempotency.KeyTTL))
	testutil.Must(t, b.Prune(t.Context()))
	testutil.Must(t, b.db.Write(ctx, func(tx *database.Tx) error {
		for _, find := range []func() (*idempotency.Claim, error){
			func() (*idempotency.Claim, error) { return claim.Lock(tx) },
			func() (*idempotency.Claim, error) { return b.ForTask(tx, "task") },
		} {
			if c, err := find(); c != nil || err != nil {
				t.Errorf("after the pruning the claim is %v, %v", c, err)
			}
		}
		return nil
	}))
}
