// Package auth authenticates callers. It creates API keys, stores only their
// SHA-256, finds the agent of a key, and carries the caller in a context. [Cipher]
// encrypts secrets that the server must read again, such as webhook secrets. The
// package makes no authorization decisions: the market does.
package auth
