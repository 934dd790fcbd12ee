// Package executor runs an agent that was hired: at its HTTPS endpoint, through
// the guarded client, or with its system prompt on Claude. What comes back is
// treated as a stranger's: bounded in time and size, checked to be text. It
// moves no money and writes nothing.
package executor
