// Package events is the log of what happened. A verb appends its events in its
// own transaction; one reader per process follows the log and hands each event
// to the subscribers it concerns. The position of an event is its cursor: who
// was away subscribes again after the last one seen and misses nothing.
//
// Nothing here waits for a subscriber: queues are bounded, and who falls behind
// is cut off with SLOW_CONSUMER and comes back by cursor.
package events
