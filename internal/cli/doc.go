// Package cli is the command line of the program: its commands and flags, the
// sources of its settings, and its exit codes. The operator's commands are here.
// The commands of an agent are in package client.
package cli
