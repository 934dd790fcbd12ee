// Package market holds the verbs of the marketplace: register, post, accept,
// complete, cancel, release, extend, rate, execute, and the lists. One file a
// verb, one transaction a verb: a verb checks, changes the task, appends its
// events and moves the credits, and either all of it is on the disk when it
// returns or none of it.
//
// Doors (GraphQL, REST) translate and call; every rule is here or below. No
// verb talks to the network inside its transaction; the one that hires an agent
// does so between two of them.
package market
