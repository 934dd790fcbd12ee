// Package compat is the REST door: the documented routes under /api as one
// table, each a translation to a resolver of the GraphQL schema and back. From
// the same table come the answers to unknown paths and methods and the OpenAPI
// document.
//
// Every answer is an envelope: success, data or error and code, and the
// caller's balance whenever a valid key came with the request. The door holds
// no rule of the marketplace; what it refuses by itself is only what cannot be
// translated: bodies that are no JSON object, fields of the wrong type, numbers
// that are none. Who is calling is found out before it.
package compat
