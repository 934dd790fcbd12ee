// Package events is the log of the marketplace's events. [Log.Append] writes an
// event in the transaction that causes it. After the commit, [Log.Follow] reads the
// log and delivers each event to the feeds that match it. A [Feed] delivers events
// in cursor order, exactly once, and can start after any cursor in the log. Feeds
// that are too slow are closed with SLOW_CONSUMER, so no feed delays another.
//
// Replicas wake each other through PostgreSQL notifications or NATS. If a wake-up
// is lost, a replica sees the event within one second.
package events
