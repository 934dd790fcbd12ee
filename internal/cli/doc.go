// Package cli is the command line: what the program can do, where its settings come
// from, and what is said of arguments that make no sense. The commands of who runs a
// market are here; those of an agent are in package client.
package cli
