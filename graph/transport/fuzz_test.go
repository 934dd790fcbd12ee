package transport_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// FuzzBody: whatever is posted, the answer is JSON with a status that blames the
// client, or a result.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		requestBody("{ hello }"), requestBody("{"), "{", "[]", "null", `{"query":1}`, `{"query":"{ hello }","variables":[]}`,
		`{"query":"query($t:String){echo(text:$t)}","variables":{"t":1}}`, `{"extensions":{"persistedQuery":{"version":1}}}`,
		`{"query":"{ hello }","operationName":"x"}`, "{\"query\":\"\xff\"}", `{"query":"{ a:hello }"}x`, `{"extensions":{"persistedQuery":7}}`,
	} {
		f.Add([]byte(body))
	}
	d := startServer(f, nil)
	statuses := []int{http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := d.do(t, http.MethodPost, "", string(body), "Content-Type", jsonType, "Accept", graphqlType)
		if !slices.Contains(statuses, got.status) || !json.Valid([]byte(got.body)) {
			t.Errorf("answered %d %s", got.status, got.body)
		}
	})
}

// FuzzFrame: whatever a client says on a socket, the server answers or closes
// the socket with a code of the protocol, and stays as it is.
func FuzzFrame(f *testing.F) {
	for _, text := range []string{
		initMessage, `{"type":"ping","payload":{"a":[1]}}`, `{"type":"complete","id":"a"}`, subscribeSilence, "{", "[]", "\xff", `{"type":7}`,
		`{"id":"a","type":"subscribe","payload":{"query":"{ hello }","variables":{"a":1}}}`, `{"type":"stop","id":"a"}`,
		`{"id":"a","type":"subscribe","payload":{"query":"subscription { numbers(count: 3) }","extensions":{}}}`,
		`{"type":"connection_terminate"}`, `{"type":"start","id":"a","payload":{"query":"subscription { panic }"}}`,
	} {
		f.Add([]byte(text), true)
		f.Add([]byte(text), false)
	}
	d := startServer(f, nil)
	codes := []int{1000, 1007, 1009, 4400, 4401, 4403, 4409, 4429}
	frames := 0
	f.Fuzz(func(t *testing.T, text []byte, old bool) {
		frames++
		protocol, question := modern, `{"type":"ping"}`
		if old {
			protocol, question = legacy, `{"type":"start","id":"last","payload":{"query":"{ hello }"}}`
		}
		p := d.dial(t, protocol)
		defer func() { testutil.Must(t, p.Close()) }()
		p.send(initMessage)
		if p.WriteMessage(websocket.TextMessage, text) != nil {
			return
		}
		_ = p.WriteMessage(websocket.TextMessage, []byte(question))
		for {
			var answer struct{ ID, Type string }
			err := p.ReadJSON(&answer)
			if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
				if !slices.Contains(codes, closed.Code) {
					t.Errorf("closed with %v", closed)
				}
				return
			}
			testutil.Must(t, err)
			if answer.Type == "pong" || answer.ID == "last" {
				return
			}
		}
	})
	trusttest.Report(f, "frames", "%d frames: each answered, or its socket closed with a code of the protocol", frames)
}
