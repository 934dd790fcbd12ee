package main

import (
	"context"
	"fmt"

	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"agentmarket.space/server/bench/baseline/graph"
)

// store inserts each task in its own transaction, which is durable (FULL) when Create
// returns. That is as durable as the product with less work: one row, while the product
// also checks a key, holds credits, appends events and enqueues a job.
type store struct{ db *gorm.DB }

// task is a row of tasks.
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

// openDatabase creates the file and the tables of the models. WAL, four connections and a
// busy timeout gave this design its best figures.
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

// Create inserts a task.
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
