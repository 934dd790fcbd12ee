// Package reference serves a page on which a person reads how the REST API works
// and tries it: RapiDoc over the server's own OpenAPI document, and a box for the
// API key.
//
// Everything the page needs is embedded. It sends nothing to any host but the one
// that served it, so it works offline and a key typed into it stays between the
// browser and this server. It knows the path of the document and nothing else of
// the module.
package reference
