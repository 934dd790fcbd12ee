package database

import "time"

// Commit is one commit, for who counts them.
type Commit struct {
	Changes int           // that it kept; on PostgreSQL always one
	Took    time.Duration // from COMMIT to its answer, and what was sent with it
	// Err is why the store did not keep what it was given, or why that is not known.
	// What it refuses, and what is tried again, is none of these.
	Err error
}

// OnCommits has fn told of every commit from now on. It must be quick: on SQLite all
// who write wait for it.
func (db *DB) OnCommits(fn func(Commit)) { db.commits.Store(&fn) }

// Waiting is how many changes wait for the writer; 0 on PostgreSQL, where they wait
// for a connection.
func (db *DB) Waiting() int { return len(db.queue) }

// Connections is how many connections to the store are in use by requests and by
// jobs, and how many there may be: on SQLite those that read.
func (db *DB) Connections() (inUse, most int) {
	if db.shared != nil {
		stat := db.shared.pool.Stat()
		return int(stat.AcquiredConns()), int(stat.MaxConns())
	}
	pool, err := db.reader.DB()
	if err != nil { // it is no pool, which it always is
		return 0, 0
	}
	return pool.Stats().InUse, readers
}

// tell tells who counts of a commit.
func (db *DB) tell(c Commit) {
	if fn := db.commits.Load(); fn != nil {
		(*fn)(c)
	}
}
