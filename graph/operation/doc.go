// Package operation reports facts about validated GraphQL operations: the root
// field, a hash of the document and its variables, and whether the response
// depends on the caller. The response cache and the event fan-out decide with
// them which callers share a result.
package operation
