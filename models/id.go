package models

import (
	"strings"

	"github.com/google/uuid"
)

// uuidLength is the length of a UUID in its usual form, the only one that is accepted.
const uuidLength = 36

// ParseUUID returns a UUID as this server writes it, in lower case. RFC 9562 asks for lower
// case when writing a UUID, and for any case when reading one. ok is false for any other
// text, and for other forms, such as one with braces.
func ParseUUID(text string) (id string, ok bool) {
	if len(text) != uuidLength || uuid.Validate(text) != nil {
		return "", false
	}
	return strings.ToLower(text), true
}

// CanonicalID returns an id that a caller sent as this server writes it: with the UUID at
// its end in lower case. Other text is returned unchanged; no object has it as its id.
func CanonicalID(text string) string {
	start := len(text) - uuidLength
	if start < 0 || start > 0 && text[start-1] != ':' { // a ledger entry's id is a kind and a UUID
		return text
	}
	if id, ok := ParseUUID(text[start:]); ok {
		return text[:start] + id
	}
	return text
}
