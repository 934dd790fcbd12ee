// Package auth tells who is calling: it mints API keys, keeps only their
// SHA-256, finds the agent behind a key, and carries the caller through a
// context. [Box] seals what must be readable again, such as webhook secrets.
// What a caller may do is the market's business.
package auth
