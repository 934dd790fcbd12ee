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

// bucketCount is the number of versions that all tracked rows share. A change of one
// row also counts as a change of the other rows in its bucket.
const bucketCount = 1 << 16

// rowVersions records the data version of the last change of each tracked row.
// Triggers on the write connection report the changes, so no statement is missed.
type rowVersions struct {
	seed              maphash.Seed
	versions          [bucketCount]atomic.Int64 // data versions
	triggersInstalled atomic.Bool

	mu      sync.Mutex
	pending []uint32 // buckets changed in the current transaction
}

// trackedTables maps the tables with tracked rows to their key columns.
var trackedTables = map[string]string{"tasks": "id", "agents": "id", "wallets": "agent_id"} //nolint:gochecknoglobals // constant

func newRowVersions() *rowVersions { return &rowVersions{seed: maphash.MakeSeed()} }

func (c *rowVersions) bucket(table, id string) uint32 {
	return uint32(maphash.Comparable(c.seed, [2]string{table, id}) % bucketCount)
}

// recordChange records a changed row. The triggers call it as record_change.
func (c *rowVersions) recordChange(table, id string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, c.bucket(table, id))
	return 0
}

// reconnectTriggers returns the SQL that creates the triggers on a new connection
// that replaces a broken one. It is empty before installTriggers.
func (c *rowVersions) reconnectTriggers() string {
	if !c.triggersInstalled.Load() {
		return ""
	}
	return triggerSQL()
}

// installTriggers creates the triggers on the write connection.
func (c *rowVersions) installTriggers(writer *gorm.DB) error {
	if err := writer.Exec(triggerSQL()).Error; err != nil {
		return fmt.Errorf("create change triggers: %w", err)
	}
	c.triggersInstalled.Store(true)
	return nil
}

// triggerSQL returns the SQL that creates the triggers. They are temporary: each
// connection needs its own.
func triggerSQL() string {
	var sql strings.Builder
	for table, key := range trackedTables {
		for verb, row := range map[string]string{"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"} {
			fmt.Fprintf(&sql, "CREATE TEMP TRIGGER changed_%[1]s_%[2]s AFTER %[2]s ON main.%[1]s BEGIN SELECT record_change('%[1]s', %[3]s.%[4]s); END;\n",
				table, verb, row, key)
		}
	}
	return sql.String()
}

// publish gives the rows changed in the current transaction a new version. It is
// called after a commit and after a rollback.
func (c *rowVersions) publish(version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, bucket := range c.pending {
		c.versions[bucket].Store(version)
	}
	c.pending = c.pending[:0]
}

// ReadSet records what a response depends on: rows or the whole database, and the
// time. It is safe for concurrent use.
type ReadSet struct {
	db      *DB
	version int64 // data version before the first read

	mu         sync.Mutex
	wholeStore bool
	buckets    []uint32
	readAt     models.Time // time of the last read
	expiresAt  models.Time // first time at which a result changes without a write; 0 means never
}

type readSetKey struct{}

// TrackReads returns a context that records reads, and their ReadSet.
func (db *DB) TrackReads(ctx context.Context) (context.Context, *ReadSet) {
	s := &ReadSet{db: db, version: db.dataVersion.Load(), wholeStore: db.rowVersions == nil}
	return context.WithValue(ctx, readSetKey{}, s), s
}

// Read returns a read-only session that sees committed rows. ctx cancels its
// statements.
func (db *DB) Read(ctx context.Context) *gorm.DB {
	if s, ok := ctx.Value(readSetKey{}).(*ReadSet); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wholeStore = true
	}
	return db.reader.WithContext(ctx)
}

// ReadRows is Read for a statement that depends only on the named rows of tasks,
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

// SetReadExpiry records that the reads in ctx were made at now and stay valid until
// the given time, unless a row changes. 0 means forever.
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

// ReadsWholeStore reports whether a read depends on more than named rows.
func (s *ReadSet) ReadsWholeStore() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wholeStore
}

// Unchanged reports whether the same reads return the same results at now. It is
// false if ReadsWholeStore is true.
func (s *ReadSet) Unchanged(now models.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wholeStore || now < s.readAt || s.expiresAt != 0 && now >= s.expiresAt {
		return false
	}
	return !slices.ContainsFunc(s.buckets, func(bucket uint32) bool { return s.db.rowVersions.versions[bucket].Load() > s.version })
}
