// Package bytelru is a least-recently-used cache with two limits: the number of
// entries and the sum of their sizes. It neither locks nor loads values; its users do.
package bytelru

import "github.com/hashicorp/golang-lru/v2/simplelru"

// LRU holds the most recently used entries. It is not safe for concurrent use.
type LRU[K comparable, V any] struct {
	entries  *simplelru.LRU[K, sizedValue[V]]
	bytes    int
	maxBytes int
}

type sizedValue[V any] struct {
	value V
	size  int
}

// New returns an LRU of at most maxEntries entries and maxBytes bytes. maxEntries must
// be positive.
func New[K comparable, V any](maxEntries, maxBytes int) (*LRU[K, V], error) {
	l := &LRU[K, V]{maxBytes: maxBytes}
	var err error
	l.entries, err = simplelru.NewLRU(maxEntries, func(_ K, evicted sizedValue[V]) { l.bytes -= evicted.size })
	return l, err
}

// Get returns the value of a key and marks it as recently used.
func (l *LRU[K, V]) Get(key K) (value V, ok bool) {
	entry, ok := l.entries.Get(key)
	return entry.value, ok
}

// Peek returns the value of a key without marking it as recently used.
func (l *LRU[K, V]) Peek(key K) (value V, ok bool) {
	entry, ok := l.entries.Peek(key)
	return entry.value, ok
}

// Set stores a value of size bytes, in place of the key's previous value, and evicts
// the least recently used entries until the limits hold. A value larger than the limit
// of bytes is evicted at once.
func (l *LRU[K, V]) Set(key K, value V, size int) {
	previous, _ := l.entries.Peek(key)
	l.bytes += size - previous.size
	l.entries.Add(key, sizedValue[V]{value, size})
	for l.bytes > l.maxBytes {
		l.entries.RemoveOldest()
	}
}

// Remove removes a key.
func (l *LRU[K, V]) Remove(key K) { l.entries.Remove(key) }

// Len returns the number of entries.
func (l *LRU[K, V]) Len() int { return l.entries.Len() }

// Bytes returns the sum of the sizes of the entries.
func (l *LRU[K, V]) Bytes() int { return l.bytes }
