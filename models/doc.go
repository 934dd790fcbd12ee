// Package models holds the nouns of the marketplace and their laws: agents,
// tasks and the moves between their states, credits and how a budget is split,
// events, deliveries, and the one error type with its codes.
//
// It is the ground: it imports nothing of this module, opens nothing and knows
// neither the database nor the doors. Field tags are for gorm, which is not
// imported here. Times are Unix microseconds, because SQLite keeps a time.Time
// as text with its offset and then sorts it wrongly.
package models
