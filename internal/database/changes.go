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

// slots is how many counters the rows share that are read one by one. Two rows
// with the same one count as changed together.
const slots = 1 << 16

// changes knows after which commit each row that is read one by one was changed
// last. The database itself tells, by triggers of the writing connection, so that
// no statement can be forgotten.
type changes struct {
	seed     maphash.Seed
	last     [slots]atomic.Int64 // a version of the store
	watching atomic.Bool

	mu      sync.Mutex
	pending []uint32 // changed in the transaction under way
}

// single is the tables whose rows are read one by one, and what by.
var single = map[string]string{"tasks": "id", "agents": "id", "wallets": "agent_id"} //nolint:gochecknoglobals // constant

func newChanges() *changes { return &changes{seed: maphash.MakeSeed()} }

func (c *changes) slot(table, id string) uint32 {
	return uint32(maphash.Comparable(c.seed, [2]string{table, id}) % slots)
}

// note is what the triggers call, as note_change, for a row that has changed.
func (c *changes) note(table, id string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, c.slot(table, id))
	return 0
}

// again is the triggers for a connection that takes the place of one that broke,
// empty for the first.
func (c *changes) again() string {
	if !c.watching.Load() {
		return ""
	}
	return triggers()
}

// watch has the connection that writes tell of every row that it changes.
func (c *changes) watch(writer *gorm.DB) error {
	if err := writer.Exec(triggers()).Error; err != nil {
		return fmt.Errorf("watch for changes: %w", err)
	}
	c.watching.Store(true)
	return nil
}

// triggers is the statements that make them, for one connection.
func triggers() string {
	var all strings.Builder
	for table, key := range single {
		for verb, row := range map[string]string{"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"} {
			fmt.Fprintf(&all, "CREATE TEMP TRIGGER changed_%[1]s_%[2]s AFTER %[2]s ON main.%[1]s BEGIN SELECT note_change('%[1]s', %[3]s.%[4]s); END;\n",
				table, verb, row, key)
		}
	}
	return all.String()
}

// publish says that a transaction has ended with this version, however it has.
func (c *changes) publish(version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, slot := range c.pending {
		c.last[slot].Store(version)
	}
	c.pending = c.pending[:0]
}

// Seen is what reads went by: some rows, or the whole store, and the time. It is
// safe for concurrent use.
type Seen struct {
	db      *DB
	version int64 // of the store before the first of them

	mu    sync.Mutex
	all   bool
	slots []uint32
	since models.Time // the latest time that something was read at
	until models.Time // the earliest at which something changes by itself; 0 is never
}

type seenKey struct{}

// Watch returns a context, and what the reads in it go by.
func (db *DB) Watch(ctx context.Context) (context.Context, *Seen) {
	s := &Seen{db: db, version: db.version.Load(), all: db.changes == nil}
	return context.WithValue(ctx, seenKey{}, s), s
}

// Read returns a read-only session that sees what is committed. Statements end
// with ctx.
func (db *DB) Read(ctx context.Context) *gorm.DB {
	if s, ok := ctx.Value(seenKey{}).(*Seen); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = true
	}
	return db.reader.WithContext(ctx)
}

// ReadRows is Read for a statement that goes by nothing but these rows of tasks,
// agents or wallets.
func (db *DB) ReadRows(ctx context.Context, table string, ids ...string) *gorm.DB {
	if s, ok := ctx.Value(seenKey{}).(*Seen); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.all {
			for _, id := range ids {
				s.slots = append(s.slots, db.changes.slot(table, id))
			}
		}
	}
	return db.reader.WithContext(ctx)
}

// Until notes of what is read in ctx that it is so now and until then, if nobody
// writes. 0 is for ever.
func Until(ctx context.Context, now, until models.Time) {
	s, ok := ctx.Value(seenKey{}).(*Seen)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = max(s.since, now)
	if until != 0 && (s.until == 0 || until < s.until) {
		s.until = until
	}
}

// All reports whether the reads went by more than rows and the time.
func (s *Seen) All() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// Stands reports whether reads that went by rows and the time would find the same
// now.
func (s *Seen) Stands(now models.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all || now < s.since || s.until != 0 && now >= s.until {
		return false
	}
	return !slices.ContainsFunc(s.slots, func(slot uint32) bool { return s.db.changes.last[slot].Load() > s.version })
}
