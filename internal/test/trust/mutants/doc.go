// Package mutants injects ten bugs into the program, one after another, and checks that a
// test fails for each. It contains only a test.
package mutants
