package database

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// maxFirstGeneration bounds the random generation of a new store. It leaves room for
// half a billion starts in user_version, which is a signed 32-bit number.
const maxFirstGeneration = 1 << 30

// startGeneration marks the database file, so that a log of changes can be matched with
// it. SQLite does not do this: it applies any log to any file.
//
// The mark is user_version in the header of the file. Every start raises it twice, and
// moves it from the log to the file after each step. The mark in the log is therefore
// equal to the one in the file, or one higher. A copy of the file from an earlier run
// is two or more behind. While a reader of another process keeps the log from being
// moved, starts do not raise the mark; a new store then has none, which is 0.
//
// startGeneration is also the first write, which fails for a read-only file.
func (db *DB) startGeneration() error {
	current, err := db.readGeneration()
	if err != nil {
		return err
	}
	next := current
	moved, err := db.moveLogIntoFile()
	if err != nil {
		return err
	}
	for range 2 {
		if !moved { // another process reads the file, which can be one step behind: another step would be too many
			break
		}
		if next++; current == 0 {
			next = rand.N[uint32](maxFirstGeneration) + 1
		}
		if err := db.writeGeneration(next); err != nil {
			return err
		}
		moved, err = db.moveLogIntoFile()
		if err != nil {
			return err
		}
	}
	if err := db.writeGeneration(next); err != nil { // the log begins with the mark
		return err
	}
	db.file.generation.Store(next)
	return nil
}

func (db *DB) readGeneration() (generation uint32, err error) {
	return generation, db.writer.Raw("PRAGMA user_version").Row().Scan(&generation)
}

func (db *DB) writeGeneration(generation uint32) error {
	return db.writer.Exec(fmt.Sprint("PRAGMA user_version = ", generation)).Error
}

// moveLogIntoFile copies all changes in the log to the file. It does not wait for
// readers of other processes, and returns false if they prevent it.
func (db *DB) moveLogIntoFile() (moved bool, err error) {
	var busy, pages, movedPages int
	err = db.writer.Raw("PRAGMA wal_checkpoint(PASSIVE)").Row().Scan(&busy, &pages, &movedPages)
	return busy == 0 && pages == movedPages, err
}

// rejectForeignLog returns an error if the log next to the file is the log of another
// file, or of another version of this file. It must run before SQLite opens the file
// for writing, because SQLite would apply the log.
func (f *storeFile) rejectForeignLog(ctx context.Context) (err error) {
	log, err := os.Stat(f.path + "-wal")
	if err != nil || log.Size() == 0 {
		return nil // SQLite creates the log
	}
	header, err := readHeader(f.file)
	if err != nil {
		return err
	}
	mismatch := fmt.Errorf("%s does not belong to this file: put the right file back, or move %[1]s away to use this one without it", filepath.Base(f.path+"-wal"))
	if !header.logged {
		return mismatch
	}
	reader, err := connect(f.path, readerParams())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeGorm(reader)) }()
	var logged uint32
	if err := reader.WithContext(ctx).Raw("PRAGMA user_version").Row().Scan(&logged); err != nil {
		return err
	}
	if header.generation != 0 && logged-header.generation > 1 {
		return mismatch
	}
	return nil
}

// watchFile checks the files of an idle store until Close. When they are lost, it makes
// the write connection read-only for the job queue, which does not use [DB.Write].
func (db *DB) watchFile() {
	ticker := time.NewTicker(fileCheckInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = db.file.check() // it logs the error and closes lost
		case <-db.file.lost:
			_ = db.writer.Exec("PRAGMA query_only = ON").Error // nothing else can be done
			return
		case <-db.closing:
			return
		}
	}
}
