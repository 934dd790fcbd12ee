// Package reference serves a RapiDoc page for the REST API: its documentation, a form to
// send requests, and a field for the API key.
//
// All files of the page are embedded. The page connects only to the host that served
// it: it works offline, and the API key is sent to no other server. The package knows
// only the path of the OpenAPI document.
package reference
