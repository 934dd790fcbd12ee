package database

import (
	"context"
	"slices"
	"sync"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

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
