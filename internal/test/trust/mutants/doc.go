// Package mutants holds ten faults that one could make, to be put into the program
// one after another: a test must notice each. It has nothing but a test.
package mutants
