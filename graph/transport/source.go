package transport

import (
	"bytes"
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Source is a subscription that has no goroutine: it is asked for its responses
// when it has some.
type Source interface {
	// Next returns the next response, as MarshalResponse writes it, or nil when there is
	// none yet: the source calls the wake that it was begun with once there is, or
	// even before Next returns, to be asked again after all else has had its turn.
	// So it need not keep who asks while it looks for something.
	// When the subscription is over it says so, with the errors to tell. It is
	// called by one goroutine at a time; ctx is that of the subscription's session.
	Next(ctx context.Context) (payload []byte, over bool, errs gqlerror.List)
	// Close ends the source. It is called once, at any time.
	Close()
}

// MarshalResponse writes a response as a Source hands it out.
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

// pullSource asks a source, and makes a panic of it the end of its subscription.
func (t *Transports) pullSource(ctx context.Context, source Source) (payload []byte, over bool, errs gqlerror.List) {
	defer func() {
		if p := recover(); p != nil {
			payload, over, errs = nil, true, t.presentPanic(ctx, p)
		}
	}()
	return source.Next(ctx)
}
