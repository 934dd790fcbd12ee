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

// FuzzBody posts any body. The response is JSON with status 200, 400 or 413.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		requestBody("{ hello }"), requestBody("{"), "{", "[]", "null", `{"query":1}`, `{"query":"{ hello }","variables":[]}`,
		`{"query":"query($t:String){echo(text:$t)}","variables":{"t":1}}`, `{"extensions":{"persistedQuery":{"version":1}}}`,
		`{"query":"{ hello }","operationName":"x"}`, "{\"query\":\"\xff\"}", `{"query":"{ a:hello }"}x`, `{"extensions":{"persistedQuery":7}}`,
	} {
		f.Add([]byte(body))
	}
	server := startServer(f, nil)
	statuses := []int{http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := server.do(t, http.MethodPost, "", string(body), "Content-Type", jsonType, "Accept", graphqlType)
		if !slices.Contains(statuses, got.status) || !json.Valid([]byte(got.body)) {
			t.Errorf("got %d %s", got.status, got.body)
		}
	})
}

// FuzzFrame sends any message on a socket. The server responds or closes the socket
// with a code of the protocol.
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
	server := startServer(f, nil)
	codes := []int{1000, 1007, 1009, 4400, 4401, 4403, 4409, 4429}
	frames := 0
	f.Fuzz(func(t *testing.T, text []byte, useLegacy bool) {
		frames++
		protocol, ping := graphqlTransportWS, `{"type":"ping"}`
		if useLegacy {
			protocol, ping = subscriptionsTransportWS, `{"type":"start","id":"last","payload":{"query":"{ hello }"}}`
		}
		client := server.dial(t, protocol)
		defer func() { testutil.Must(t, client.Close()) }()
		client.send(initMessage)
		if client.WriteMessage(websocket.TextMessage, text) != nil {
			return
		}
		_ = client.WriteMessage(websocket.TextMessage, []byte(ping))
		for {
			var reply struct{ ID, Type string }
			err := client.ReadJSON(&reply)
			if closeErr, ok := errors.AsType[*websocket.CloseError](err); ok {
				if !slices.Contains(codes, closeErr.Code) {
					t.Errorf("closed with %v", closeErr)
				}
				return
			}
			testutil.Must(t, err)
			if reply.Type == "pong" || reply.ID == "last" {
				return
			}
		}
	})
	trusttest.Report(f, "frames", "%d frames: always a response or a close code of the protocol", frames)
}
