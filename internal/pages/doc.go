// Package pages serves static content: the embedded files of a web page, and documents
// that are rendered when the server starts.
//
// Responses are compressed for clients that accept gzip and have an ETag. A page can
// load resources from its own host only, which its Content-Security-Policy enforces.
package pages
