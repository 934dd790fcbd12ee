package database

// MaxBatch is how many changes share one commit at most.
const MaxBatch = maxBatch

// Waiting returns how many changes wait for their turn.
func (db *DB) Waiting() int { return len(db.queue) }

// Closing is closed once Close has been called.
func (db *DB) Closing() <-chan struct{} { return db.closing }

// Refused reports whether the engine has answered that a transaction is not
// committed.
func Refused(err error) bool { return refused(err) }
