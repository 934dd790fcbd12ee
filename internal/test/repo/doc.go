// Package repo tests the rules of the repository: the layers of the architecture, the
// agreement of documents and code, and plain English. Its tests run in the root of the
// module.
package repo
