package transport

import (
	"bytes"
	"encoding/json"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// writeResponse writes a response as JSON. It copies the data, which the executor has
// already encoded, and leaves out the data entry if the operation was not executed.
func writeResponse(buffer *bytes.Buffer, response *graphql.Response) {
	separator := byte('{')
	entry := func(name string) {
		buffer.WriteByte(separator)
		separator = ','
		buffer.WriteString(name)
	}
	if len(response.Errors) > 0 {
		entry(`"errors":`)
		writeJSON(buffer, response.Errors)
	}
	if response.Data != nil {
		entry(`"data":`)
		buffer.Write(response.Data)
	}
	if len(response.Extensions) > 0 {
		entry(`"extensions":`)
		writeJSON(buffer, response.Extensions)
	}
	if separator == '{' {
		buffer.WriteByte('{')
	}
	buffer.WriteByte('}')
}

func writeJSON(buffer *bytes.Buffer, value any) {
	text, err := json.Marshal(value)
	if err != nil { // an extension cannot be encoded: a bug in the server
		text = []byte("null")
	}
	buffer.Write(text)
}

// errorList returns the GraphQL errors for a request error.
func errorList(r *requestError) gqlerror.List {
	err := &gqlerror.Error{Message: r.message, Extensions: map[string]any{"code": string(r.code)}}
	if r.field != "" {
		err.Extensions["field"] = r.field
	}
	return gqlerror.List{err}
}
