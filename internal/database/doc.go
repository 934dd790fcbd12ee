// Package database opens the SQLite or PostgreSQL database. Other packages access
// it only through this package: [DB.Write] runs a function in a transaction, and
// [DB.Read] reads committed rows.
//
// On SQLite one goroutine owns the only write connection and commits in batches
// (group commit). While a commit syncs to disk, callers wait in a queue. The next
// transaction takes up to 128 of them, each behind its own savepoint, so a call
// that fails does not affect the others. Write returns after the commit, even with
// an error: a call can fail because of another call in the same batch, which is
// committed at that time. Commits use synchronous=FULL, so acknowledged writes
// survive a power failure.
//
// A [Tx] is passed as a parameter and never in a context. A function passed to
// Write must not call anything outside the database, because it blocks all other
// writes. Migrations are SQL files, one directory per engine. gorm creates no
// tables.
package database
