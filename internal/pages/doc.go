// Package pages serves what people and programs read: the embedded files of a
// page in the browser, and documents that are made when the server starts.
//
// Each goes out compressed to whoever accepts gzip, with an ETag by which one that
// is kept is asked for again. What a page may load is its own host's only, which
// its Content-Security-Policy enforces. The package knows nothing of what is in a
// file.
package pages
