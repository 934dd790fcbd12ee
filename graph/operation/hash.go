package operation

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"

	"github.com/99designs/gqlgen/graphql"
)

// Hash identifies a document, the operation selected in it, and variables.
type Hash [sha256.Size]byte

// HashOf returns the hash of an operation with the given variables. It returns an error
// if the variables cannot be encoded as JSON.
func HashOf(o *graphql.OperationContext, variables map[string]any) (Hash, error) {
	encoded, err := json.Marshal(variables)
	if err != nil {
		return Hash{}, err
	}
	return sha256.Sum256(bytes.Join([][]byte{[]byte(o.RawQuery), []byte(o.OperationName), encoded}, []byte{0})), nil
}
