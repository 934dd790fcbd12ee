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

// AttachSource has the transport that runs the subscription of ctx ask a source from
// now on. Wake never waits and may be called at any time, by anybody. It reports
// false, and begins nothing, when no transport runs it.
func AttachSource(ctx context.Context, begin func(wake func()) Source) bool {
	o, ok := ctx.Value(sourceSlotKey{}).(*sourceSlot)
	if ok {
		o.source = begin(o.wake)
	}
	return ok
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
