package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"agentmarket.space/server/bench/baseline/graph"
)

// ledgerStore does the work of the product's postTask with gorm, in one transaction for
// each call: it looks up the key, debits the poster's wallet, and inserts the task with its
// capabilities, the transfer, an event and a job. There are no triggers that verify the
// ledger and no wallet journal.
type ledgerStore struct {
	db *gorm.DB

	// known are the keys with an account. The first request with a key creates one,
	// because agents do not register with a baseline.
	mu             sync.Mutex
	openedAccounts map[string]bool
}

type account struct {
	ID        string `gorm:"primaryKey"`
	KeyHash   string `gorm:"uniqueIndex"`
	Available int    `gorm:"check:available >= 0"`
	Held      int    `gorm:"check:held >= 0"`
}

type capability struct {
	Word   string `gorm:"primaryKey"`
	TaskID string `gorm:"primaryKey"`
}

type transfer struct {
	Seq    int64  `gorm:"primaryKey;autoIncrement"`
	Kind   string `gorm:"uniqueIndex:once"`
	TaskID string `gorm:"uniqueIndex:once"`
	Debit  string `gorm:"index"`
	Credit string `gorm:"index"`
	Amount int    `gorm:"check:amount > 0"`
}

type event struct {
	Seq    int64 `gorm:"primaryKey;autoIncrement"`
	Kind   string
	TaskID string `gorm:"index"`
	Agent  string `gorm:"index"`
}

type job struct {
	Seq   int64  `gorm:"primaryKey;autoIncrement"`
	Kind  string `gorm:"index:due"`
	State string `gorm:"index:due"`
	Args  string
}

const credits = 1_000_000_000

var errInsufficientCredits = errors.New("not enough credits")

func openLedgerStore(file string) (*ledgerStore, error) {
	db, err := openDatabase(file, &account{}, &task{}, &capability{}, &transfer{}, &event{}, &job{})
	if err != nil {
		return nil, err
	}
	return &ledgerStore{db: db, openedAccounts: map[string]bool{}}, nil
}

// Create inserts a task with everything that belongs to it.
func (b *ledgerStore) Create(ctx context.Context, posted *graph.Task) error {
	sum := sha256.Sum256([]byte(graph.APIKeyFrom(ctx)))
	hash := hex.EncodeToString(sum[:])
	if err := b.openAccount(ctx, hash); err != nil {
		return err
	}
	var poster account
	if err := b.db.WithContext(ctx).Take(&poster, "key_hash = ?", hash).Error; err != nil {
		return err
	}
	return b.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		hold := tx.Exec("UPDATE accounts SET available = available - ?, held = held + ? WHERE id = ? AND available >= ?",
			posted.Budget, posted.Budget, poster.ID, posted.Budget)
		if hold.Error != nil {
			return hold.Error
		}
		if hold.RowsAffected != 1 {
			return errInsufficientCredits
		}
		var words []capability
		for _, word := range posted.RequiredCapabilities {
			words = append(words, capability{Word: word, TaskID: posted.ID})
		}
		for _, row := range []any{
			newTaskRow(posted, poster.ID), &words,
			&transfer{Kind: "hold", TaskID: posted.ID, Debit: "available:" + poster.ID, Credit: "held:" + poster.ID, Amount: posted.Budget},
			&event{Kind: "task.posted", TaskID: posted.ID, Agent: poster.ID},
			&job{Kind: "match", State: "available", Args: `{"task":"` + posted.ID + `"}`},
		} {
			if err := tx.Create(row).Error; err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *ledgerStore) openAccount(ctx context.Context, hash string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.openedAccounts[hash] {
		return nil
	}
	b.openedAccounts[hash] = true
	return b.db.WithContext(ctx).Create(&account{ID: uuid.NewString(), KeyHash: hash, Available: credits}).Error
}
