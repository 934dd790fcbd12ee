// Package market implements the operations of the marketplace: register, post, accept,
// complete, cancel, release, extend, rate, execute, and the lists. Each operation has a
// file and runs in one transaction: it validates its input, changes the task, appends
// events and moves credits. When it returns, either all of that is committed or none.
//
// GraphQL and REST only translate; every rule is here or in a package below. No
// transaction makes network calls. Hiring an agent uses two transactions and calls the
// agent between them.
//
// Lock order: idempotency key, registrant, task, agent, secret, webhook, delivery, wallet.
// The wallet comes last, so that its lock is held shortly.
package market
