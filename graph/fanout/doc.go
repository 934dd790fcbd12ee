// Package fanout runs GraphQL subscriptions. A table gives the interest of a
// subscription: which events it receives. The hub opens a source for it, which the
// transport reads when the source wakes it, so that an idle subscription has no
// goroutine. An event is rendered once for all subscribers with the same document,
// unless the document selects a field that depends on the caller.
package fanout
