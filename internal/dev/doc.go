// Package dev runs a local sandbox for the development of agents: a server with a
// temporary database, sample agents that trade with each other, stubs of the
// external services, and a clock that can be advanced. The sample agents use the
// public API. The sandbox prints its keys, so it listens on loopback only.
package dev
