// Package database opens the store and is the only door to it: [DB.Write] runs
// a change in a transaction, [DB.Read] reads what is committed.
//
// On SQLite one goroutine owns the only writing connection. Callers queue up
// while a commit is on its way to the disk, and the next transaction takes all
// of them at once, each behind its own savepoint (group commit): one fsync
// serves up to 128 changes, and a change that fails takes none of its
// neighbours along. A caller is answered after the commit, never before, also
// one that is refused: what it was refused for is committed then. Commits are
// FULL: what was answered survives a power cut.
//
// A [Tx] is handed down as a parameter and never travels in a context. Nothing
// outside the database is called inside Write: it would hold up everybody.
// Migrations are SQL files, one folder a dialect; gorm creates nothing.
package database
