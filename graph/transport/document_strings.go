package transport

import (
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/lexer"

	"agentmarket.space/server/internal/jsontext"
	"agentmarket.space/server/models"
)

// checkStrings rejects a document with a string that has half of a surrogate pair: the
// parser replaces it without an error. The document has been parsed. The error names the
// argument or input field. Block strings have no such escapes.
func checkStrings(document string) *gqlerror.Error {
	if !strings.Contains(document, `\u`) {
		return nil
	}
	var field, name string
	runes := []rune(document) // positions of tokens are in characters
	tokens := lexer.New(&ast.Source{Input: document})
	for {
		token, err := tokens.ReadToken()
		if err != nil || token.Kind == lexer.EOF {
			return nil //nolint:nilerr // the document has been parsed
		}
		switch token.Kind { //nolint:exhaustive // other tokens do not matter
		case lexer.Name:
			name = token.Value
		case lexer.Colon:
			field = name
		case lexer.String:
			if jsontext.HasUnpairedSurrogate([]byte(string(runes[token.Pos.Start:token.Pos.End]))) {
				field, message := jsontext.FieldError([]string{field})
				return &gqlerror.Error{Message: message, Extensions: map[string]any{"code": string(models.InvalidInput), "field": field}}
			}
		}
	}
}
