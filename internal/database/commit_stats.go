package database

import "time"

// CommitStats is one commit, for who counts them.
type CommitStats struct {
	Changes  int           // that it kept; on PostgreSQL always one
	Duration time.Duration // from COMMIT to its answer, and what was sent with it
	// Err is why the store did not keep what it was given, or why that is not known.
	// What it refuses, and what is tried again, is none of these.
	Err error
}

// ObserveCommits has fn told of every commit from now on. It must be quick: on SQLite all
// who write wait for it.
func (db *DB) ObserveCommits(fn func(CommitStats)) { db.commitObserver.Store(&fn) }

// QueuedWrites is how many changes wait for the writer; 0 on PostgreSQL, where they wait
// for a connection.
func (db *DB) QueuedWrites() int { return len(db.queue) }

// Connections is how many connections to the store are in use by requests and by
// jobs, and how many there may be: on SQLite those that read.
func (db *DB) Connections() (inUse, most int) {
	if db.pg != nil {
		stat := db.pg.pool.Stat()
		return int(stat.AcquiredConns()), int(stat.MaxConns())
	}
	pool, err := db.reader.DB()
	if err != nil { // it is no pool, which it always is
		return 0, 0
	}
	return pool.Stats().InUse, readConnections
}

// notifyCommit tells who counts of a commit.
func (db *DB) notifyCommit(c CommitStats) {
	if fn := db.commitObserver.Load(); fn != nil {
		(*fn)(c)
	}
}
