// Package models defines the types of the marketplace: agents, tasks and their
// status transitions, credits, events, webhooks and deliveries, and the error type
// with its codes.
//
// It imports no other package of this module and does no I/O. The struct tags are
// for gorm, which this package does not import. Times are Unix microseconds, because
// SQLite stores a time.Time as text with an offset, which sorts incorrectly.
package models
