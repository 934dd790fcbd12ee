package main

import (
	"context"
	"fmt"

	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"agentmarket.space/server/bench/baseline/graph"
)

// store writes each task in a transaction of its own, which is durable (FULL)
// when Create returns. It promises as much about the task as the product does,
// for less work: one row, where the product also checks a key, takes the hold,
// appends events and enqueues the job.
type store struct{ db *gorm.DB }

// task is how a task is kept.
type task struct {
	ID                   string `gorm:"primaryKey"`
	Title                string
	Description          string
	Budget               int
	RequiredCapabilities []string `gorm:"serializer:json"`
	Status               string   `gorm:"index:listed"`
	PosterID             string
	CreatedAt            string `gorm:"index:listed"`
}

// openDatabase makes the file and the tables of the models. Write-ahead log, four
// connections and waiting for the lock instead of failing are the settings that
// gave this design its best figures.
func openDatabase(file string, models ...any) (*gorm.DB, error) {
	dsn := "file:" + file + "?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_txlock=immediate&_foreign_keys=on"
	db, err := gorm.Open(sqlite.Open(dsn), &gorm.Config{Logger: logger.Discard, PrepareStmt: true})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	pool, err := db.DB()
	if err != nil {
		return nil, fmt.Errorf("pool of %s: %w", file, err)
	}
	pool.SetMaxOpenConns(4)
	pool.SetMaxIdleConns(4)
	if err := db.AutoMigrate(models...); err != nil {
		return nil, fmt.Errorf("create tables in %s: %w", file, err)
	}
	return db, nil
}

// Create keeps one task.
func (s *store) Create(ctx context.Context, posted *graph.Task) error {
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		return tx.Create(newTaskRow(posted, posted.Poster.ID)).Error
	})
}

func newTaskRow(posted *graph.Task, posterID string) *task {
	return &task{
		ID:                   posted.ID,
		Title:                posted.Title,
		Description:          posted.Description,
		Budget:               posted.Budget,
		RequiredCapabilities: posted.RequiredCapabilities,
		Status:               string(posted.Status),
		PosterID:             posterID,
		CreatedAt:            posted.CreatedAt,
	}
}
