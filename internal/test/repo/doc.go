// Package repo holds the rules of the repository as tests: the layers of the
// architecture, and that the documents agree with the code. Its tests run in
// the root of the module.
package repo
