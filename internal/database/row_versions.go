package database

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// bucketCount is how many counters the rows share that are read one by one. Two rows
// with the same one count as changed together.
const bucketCount = 1 << 16

// rowVersions knows after which commit each row that is read one by one was changed
// last. The database itself tells, by triggers of the writing connection, so that
// no statement can be forgotten.
type rowVersions struct {
	seed              maphash.Seed
	versions          [bucketCount]atomic.Int64 // a version of the store
	triggersInstalled atomic.Bool

	mu      sync.Mutex
	pending []uint32 // changed in the transaction under way
}

// trackedTables is the tables whose rows are read one by one, and what by.
var trackedTables = map[string]string{"tasks": "id", "agents": "id", "wallets": "agent_id"} //nolint:gochecknoglobals // constant

func newRowVersions() *rowVersions { return &rowVersions{seed: maphash.MakeSeed()} }

func (c *rowVersions) bucket(table, id string) uint32 {
	return uint32(maphash.Comparable(c.seed, [2]string{table, id}) % bucketCount)
}

// recordChange is what the triggers call, as record_change, for a row that has changed.
func (c *rowVersions) recordChange(table, id string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, c.bucket(table, id))
	return 0
}

// reconnectTriggers is the triggers for a connection that takes the place of one that broke,
// empty for the first.
func (c *rowVersions) reconnectTriggers() string {
	if !c.triggersInstalled.Load() {
		return ""
	}
	return triggerSQL()
}

// installTriggers has the connection that writes tell of every row that it changes.
func (c *rowVersions) installTriggers(writer *gorm.DB) error {
	if err := writer.Exec(triggerSQL()).Error; err != nil {
		return fmt.Errorf("watch for changes: %w", err)
	}
	c.triggersInstalled.Store(true)
	return nil
}

// triggerSQL is the statements that make them, for one connection.
func triggerSQL() string {
	var all strings.Builder
	for table, key := range trackedTables {
		for verb, row := range map[string]string{"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"} {
			fmt.Fprintf(&all, "CREATE TEMP TRIGGER changed_%[1]s_%[2]s AFTER %[2]s ON main.%[1]s BEGIN SELECT record_change('%[1]s', %[3]s.%[4]s); END;\n",
				table, verb, row, key)
		}
	}
	return all.String()
}

// publish says that a transaction has ended with this version, however it has.
func (c *rowVersions) publish(version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, slot := range c.pending {
		c.versions[slot].Store(version)
	}
	c.pending = c.pending[:0]
}

// ReadSet is what reads went by: some rows, or the whole store, and the time. It is
// safe for concurrent use.
type ReadSet struct {
	db      *DB
	version int64 // of the store before the first of them

	mu         sync.Mutex
	wholeStore bool
	buckets    []uint32
	readAt     models.Time // the latest time that something was read at
	expiresAt  models.Time // the earliest at which something changes by itself; 0 is never
}

type readSetKey struct{}

// TrackReads returns a context, and what the reads in it go by.
func (db *DB) TrackReads(ctx context.Context) (context.Context, *ReadSet) {
	s := &ReadSet{db: db, version: db.dataVersion.Load(), wholeStore: db.rowVersions == nil}
	return context.WithValue(ctx, readSetKey{}, s), s
}

// Read returns a read-only session that sees what is committed. Statements end
// with ctx.
func (db *DB) Read(ctx context.Context) *gorm.DB {
	if s, ok := ctx.Value(readSetKey{}).(*ReadSet); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wholeStore = true
	}
	return db.reader.WithContext(ctx)
}

// ReadRows is Read for a statement that goes by nothing but these rows of tasks,
// agents or wallets.
func (db *DB) ReadRows(ctx context.Context, table string, ids ...string) *gorm.DB {
	if s, ok := ctx.Value(readSetKey{}).(*ReadSet); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.wholeStore {
			for _, id := range ids {
				s.buckets = append(s.buckets, db.rowVersions.bucket(table, id))
			}
		}
	}
	return db.reader.WithContext(ctx)
}

// SetReadExpiry notes of what is read in ctx that it is so now and until then, if nobody
// writes. 0 is for ever.
func SetReadExpiry(ctx context.Context, now, until models.Time) {
	s, ok := ctx.Value(readSetKey{}).(*ReadSet)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readAt = max(s.readAt, now)
	if until != 0 && (s.expiresAt == 0 || until < s.expiresAt) {
		s.expiresAt = until
	}
}

// ReadsWholeStore reports whether the reads went by more than rows and the time.
func (s *ReadSet) ReadsWholeStore() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wholeStore
}

// Unchanged reports whether reads that went by rows and the time would find the same
// now.
func (s *ReadSet) Unchanged(now models.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wholeStore || now < s.readAt || s.expiresAt != 0 && now >= s.expiresAt {
		return false
	}
	return !slices.ContainsFunc(s.buckets, func(slot uint32) bool { return s.db.rowVersions.versions[slot].Load() > s.version })
}
