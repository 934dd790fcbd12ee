// Package compat serves the REST API: the documented routes below /api and the OpenAPI
// document. All of them come from one table of routes. Each route calls a resolver of
// the GraphQL schema and converts its result.
//
// Every response is a JSON envelope: success, data or error and code, and the caller's
// balance if the request had a valid API key. The package has no marketplace rules. It
// only rejects requests that it cannot convert, such as a body that is not a JSON object
// or a field of the wrong type. Callers are authenticated before the handler runs.
package compat
