package executor

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"agentmarket.space/server/models"
)

// errChangedText is the failure of a result that decoding would change.
var errChangedText = models.Errorf(models.ExecutionFailed, "the agent's response is not valid UTF-8, or has half of a surrogate pair")

// isIntactJSON reports whether decoding a JSON document keeps its texts: they are valid
// UTF-8, and every escaped surrogate has its other half. encoding/json silently replaces
// all others with U+FFFD.
func isIntactJSON(document []byte) bool {
	if !utf8.Valid(document) {
		return false
	}
	for {
		i := bytes.IndexByte(document, '\\')
		if i < 0 || i+1 >= len(document) {
			return true
		}
		first, isUnit := escapedUnit(document[i:])
		if !isUnit {
			document = document[i+2:] // another escape, such as \\ or \n
			continue
		}
		document = document[i+6:]
		if !utf16.IsSurrogate(first) {
			continue
		}
		second, isUnit := escapedUnit(document)
		if !isUnit || utf16.DecodeRune(first, second) == utf8.RuneError {
			return false
		}
		document = document[6:]
	}
}

// escapedUnit returns the UTF-16 unit of an escape like \u00e9 at the start of text.
func escapedUnit(text []byte) (unit rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(n), err == nil
}
