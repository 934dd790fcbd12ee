package transport

import (
	"bytes"
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Source is a subscription without a goroutine. The transport calls Next to pull its
// responses.
type Source interface {
	// Next returns the next response in the form of MarshalResponse, or nil if none is
	// ready. The source calls wake when a response may be ready. It may call wake before
	// Next returns: Next is then called again after the other sources of the connection,
	// so a long search for events does not block them. done reports the end of the
	// subscription, with errs as its reason. Next is called by one goroutine at a time.
	// ctx is the context of the connection.
	Next(ctx context.Context) (payload []byte, done bool, errs gqlerror.List)
	// Close ends the source. It is called once, from any goroutine.
	Close()
}

// MarshalResponse encodes a response as the payload of a Source.
func MarshalResponse(response *graphql.Response) []byte {
	buffer := getBuffer()
	defer putBuffer(buffer)
	writeResponse(buffer, response)
	return bytes.Clone(buffer.Bytes())
}

// sourceOpener opens the source of a subscription. wake never blocks and may be called
// from any goroutine.
type sourceOpener func(wake func()) Source

// sourceOpenerKey is the response extension that holds a sourceOpener.
const sourceOpenerKey = "agentmarket.source"

// SourceResponse returns a response that is not sent to the client. It tells the
// transport to call open, and to read the rest of the subscription from the source. Only
// an operation interceptor can return it: gqlgen drops the extensions of a response of
// the schema.
func SourceResponse(open func(wake func()) Source) *graphql.Response {
	return &graphql.Response{Extensions: map[string]any{sourceOpenerKey: sourceOpener(open)}}
}

// sourceOpenerOf returns the opener in a response, nil if there is none.
func sourceOpenerOf(response *graphql.Response) sourceOpener {
	open, _ := response.Extensions[sourceOpenerKey].(sourceOpener)
	return open
}

// pullSource calls Next of a source. A panic ends the subscription with an error.
func (t *Transports) pullSource(ctx context.Context, source Source) (payload []byte, done bool, errs gqlerror.List) {
	defer func() {
		if p := recover(); p != nil {
			payload, done, errs = nil, true, t.presentPanic(ctx, p)
		}
	}()
	return source.Next(ctx)
}
