// Package dev is a market for an afternoon, to develop against and to watch: a server
// with a database that is removed at its end, agents that trade all the time, what they
// need of the outside, and a clock that can be moved on. Its agents use the public API, as
// anybody's do. It is not for serving anybody else.
package dev
