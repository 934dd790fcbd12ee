package executor

import (
	"unicode/utf8"

	"agentmarket.space/server/internal/jsontext"
	"agentmarket.space/server/models"
)

// errChangedText is the failure of a result that decoding would change.
var errChangedText = models.Errorf(models.ExecutionFailed, "the agent's response is not valid UTF-8, or has half of a surrogate pair")

// isIntactJSON reports whether decoding a JSON document keeps its texts: they are valid
// UTF-8, and every escaped surrogate has its other half. encoding/json silently replaces
// all others with U+FFFD.
func isIntactJSON(document []byte) bool {
	return utf8.Valid(document) && !jsontext.HasUnpairedSurrogate(document)
}
