// Package cache is the response cache that GraphQL and REST share. It serves a
// response from memory only when executing the request again would return the same
// bytes: a response is dropped when a row that it depends on is written, or when time
// changes the state of a task in it. It needs a database that no other process writes
// to; with a shared database it caches nothing.
package cache
