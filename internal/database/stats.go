package database

import "time"

// CommitStats describes one commit.
type CommitStats struct {
	Changes  int           // committed calls of Write; at most 1 on PostgreSQL
	Duration time.Duration // of the COMMIT statement and the statements sent with it
	// Err is the error of a commit that failed or has an unknown outcome. It is nil
	// if the function passed to Write failed or the transaction is retried.
	Err error
}

// ObserveCommits calls fn after every later commit. fn must return quickly: on
// SQLite it blocks all writes.
func (db *DB) ObserveCommits(fn func(CommitStats)) { db.commitObserver.Store(&fn) }

// QueuedWrites returns the number of writes in the queue of the writer. It is 0 on
// PostgreSQL, where writes wait for a connection.
func (db *DB) QueuedWrites() int { return len(db.queue) }

// Connections returns the number of connections in use by requests and jobs, and
// its maximum. On SQLite it counts only read connections.
func (db *DB) Connections() (inUse, limit int) {
	if db.pg != nil {
		stat := db.pg.pool.Stat()
		return int(stat.AcquiredConns()), int(stat.MaxConns())
	}
	pool, err := db.reader.DB()
	if err != nil { // the reader always has a pool
		return 0, 0
	}
	return pool.Stats().InUse, readConnections
}

// notifyCommit calls the observer of commits.
func (db *DB) notifyCommit(c CommitStats) {
	if fn := db.commitObserver.Load(); fn != nil {
		(*fn)(c)
	}
}
