package graph

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

const (
	rotateDocument = "mutation { rotateApiKey { apiKey } }"
	rotationKey    = "3f1c9d52-6a0e-4b7e-9d6b-rotation"
)

// door sends one operation with an Idempotency-Key over one of the transports.
type door func(t *testing.T, b *bundle, c caller, idempotencyKey, document string) gqlResponse

func doors() map[string]door {
	return map[string]door{
		"HTTP": func(t *testing.T, b *bundle, c caller, idempotencyKey, document string) gqlResponse {
			t.Helper()
			return b.query(t, c, document, "Idempotency-Key", idempotencyKey)
		},
		"extension over HTTP": func(t *testing.T, b *bundle, c caller, idempotencyKey, document string) gqlResponse {
			t.Helper()
			body, err := json.Marshal(map[string]any{"query": document, "extensions": map[string]string{"idempotencyKey": idempotencyKey}})
			testutil.Must(t, err)
			return b.send(t, c, http.MethodPost, "", body, "Content-Type", "application/json", "Idempotency-Key", idempotencyKey)
		},
		"event stream": func(t *testing.T, b *bundle, c caller, idempotencyKey, document string) gqlResponse {
			t.Helper()
			return b.streamOnce(t, c, idempotencyKey, document)
		},
		"WebSocket": func(t *testing.T, b *bundle, c caller, idempotencyKey, document string) gqlResponse {
			t.Helper()
			return b.socketOnce(t, "graphql-transport-ws", http.Header{}, map[string]string{"apiKey": c.key, "idempotencyKey": idempotencyKey}, idempotencyKey, document)
		},
		"older WebSocket protocol": func(t *testing.T, b *bundle, c caller, idempotencyKey, document string) gqlResponse {
			t.Helper()
			return b.socketOnce(t, "graphql-ws", http.Header{}, map[string]string{"apiKey": c.key, "idempotencyKey": idempotencyKey}, idempotencyKey, document)
		},
		"key in the handshake": func(t *testing.T, b *bundle, c caller, idempotencyKey, document string) gqlResponse {
			t.Helper()
			return b.socketOnce(t, "graphql-transport-ws", http.Header{"X-Api-Key": {c.key}, "Idempotency-Key": {idempotencyKey}}, nil, idempotencyKey, document)
		},
	}
}

// streamOnce sends an operation over server-sent events and returns its last response.
func (b *bundle) streamOnce(t *testing.T, c caller, idempotencyKey, document string) (out gqlResponse) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"query": document})
	testutil.Must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url, strings.NewReader(string(body)))
	testutil.Must(t, err)
	request.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"text/event-stream"}, "X-Api-Key": {c.key}, "Idempotency-Key": {idempotencyKey}}
	response, err := http.DefaultTransport.RoundTrip(request)
	testutil.Must(t, err)
	defer func() { testutil.Must(t, response.Body.Close()) }()
	text, err := io.ReadAll(response.Body)
	testutil.Must(t, err)
	if _, events, ok := strings.Cut(string(text), "data: "); ok {
		text = []byte(strings.SplitN(events, "\n", 2)[0])
	}
	testutil.Must(t, json.Unmarshal(text, &out))
	return out
}

// socketOnce sends an operation over a new WebSocket and returns its response, and
// UNAUTHENTICATED if the socket is refused.
func (b *bundle) socketOnce(t *testing.T, protocol string, header http.Header, init map[string]string, idempotencyKey, document string) (out gqlResponse) {
	t.Helper()
	refused := gqlResponse{Errors: []gqlError{{Extensions: map[string]any{"code": string(models.Unauthenticated)}}}}
	dialer := websocket.Dialer{Subprotocols: []string{protocol}}
	conn, response, err := dialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.url, "http"), header)
	if response != nil && response.StatusCode == http.StatusUnauthorized {
		return refused
	}
	testutil.Must(t, err)
	testutil.Must(t, response.Body.Close())
	defer func() { _ = conn.Close() }()
	testutil.Must(t, conn.SetReadDeadline(time.Now().Add(testutil.Timeout)))
	if init["apiKey"] == "" {
		delete(init, "apiKey")
	}
	testutil.Must(t, conn.WriteJSON(map[string]any{"type": "connection_init", "payload": init}))
	start := map[string]string{"graphql-transport-ws": "subscribe", "graphql-ws": "start"}[protocol]
	testutil.Must(t, conn.WriteJSON(map[string]any{"type": start, "id": "1", "payload": map[string]any{
		"query": document, "extensions": map[string]string{"idempotencyKey": idempotencyKey},
	}}))
	for {
		var message struct {
			ID      string
			Payload json.RawMessage
		}
		if err := conn.ReadJSON(&message); err != nil {
			if !websocket.IsCloseError(err, 4403) {
				t.Fatalf("the socket ended with %v", err)
			}
			return refused
		}
		switch {
		case message.ID == "":
			continue
		case message.Payload[0] == '[':
			testutil.Must(t, json.Unmarshal(message.Payload, &out.Errors))
			return out
		}
		testutil.Must(t, json.Unmarshal(message.Payload, &out))
		if out.Data == nil && len(out.Errors) == 0 {
			var single gqlError
			testutil.Must(t, json.Unmarshal(message.Payload, &single))
			out.Errors = []gqlError{single}
		}
		return out
	}
}

// TestReplacedKey checks that an agent whose new API key was lost gets it again with the
// old key and the same Idempotency-Key, over every transport, and that the old key can do
// nothing else.
func TestReplacedKey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for name, send := range doors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := b.registerAgent(t, "")
			newKey := send(t, b, agent, rotationKey, rotateDocument).get(t, "rotateApiKey.apiKey")
			for other, sendAgain := range doors() {
				if got := sendAgain(t, b, agent, rotationKey, rotateDocument).get(t, "rotateApiKey.apiKey"); got != newKey {
					t.Errorf("over %s: got another key", other)
				}
			}
			for what, document := range map[string]string{
				"a query":          "{ marketplace { version } }",
				"a private query":  "{ viewer { ownerEmail } }",
				"a mutation":       "mutation { removeWebhook { viewer { ownerEmail } } }",
				"a second field":   "mutation { rotateApiKey { apiKey } removeWebhook { viewer { ownerEmail } } }",
				"a second alias":   "mutation { a: rotateApiKey { apiKey } b: rotateApiKey { apiKey } }",
				"only a type name": "mutation { __typename }",
				"a registration":   `mutation { registerAgent(input: {name: "A"}) { apiKey } }`,
			} {
				b.mustQuery(t, caller{agent.id, newKey}, "{ marketplace { version } }") // may be cached
				assertError(t, what, send(t, b, agent, rotationKey, document), models.Unauthenticated, "")
			}
			assertError(t, "another Idempotency-Key", send(t, b, agent, rotationKey+"x", rotateDocument), models.Unauthenticated, "")
			assertError(t, "no Idempotency-Key", send(t, b, agent, "", rotateDocument), models.Unauthenticated, "")
			assertError(t, "an unknown key", send(t, b, caller{key: "unknown"}, rotationKey, rotateDocument), models.Unauthenticated, "")

			next := caller{agent.id, newKey}
			lastKey := send(t, b, next, rotationKey+"2", rotateDocument).get(t, "rotateApiKey.apiKey")
			assertError(t, "a key that was replaced twice", send(t, b, agent, rotationKey, rotateDocument), models.Unauthenticated, "")
			assertError(t, "an older key with the latest Idempotency-Key", send(t, b, agent, rotationKey+"2", rotateDocument), models.Unauthenticated, "")
			if got := send(t, b, next, rotationKey+"2", rotateDocument).get(t, "rotateApiKey.apiKey"); got != lastKey {
				t.Error("the latest key is not returned again")
			}
			testutil.Must(t, b.RevokeKeys(t.Context(), agent.id))
			assertError(t, "a key that the operator revoked", send(t, b, next, rotationKey+"2", rotateDocument), models.Unauthenticated, "")
		})
	}
}

// TestReplacedKey_expires checks that the old key is of no use after 24 hours, and that a
// short Idempotency-Key is rejected before anything changes.
func TestReplacedKey_expires(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	assertError(t, "a short key", b.query(t, agent, rotateDocument, "Idempotency-Key", "fifteen letters"), models.InvalidInput, "Idempotency-Key")
	b.mustQuery(t, agent, rotateDocument, "Idempotency-Key", rotationKey)
	b.Clock.Advance(idempotency.KeyTTL - time.Second)
	b.mustQuery(t, agent, rotateDocument, "Idempotency-Key", rotationKey)
	b.Clock.Advance(time.Second)
	assertError(t, "after 24 hours", b.query(t, agent, rotateDocument, "Idempotency-Key", rotationKey), models.Unauthenticated, "")
}

// TestReplacedKey_openSocket checks that a socket that was opened with a replaced key loses
// its right when the new key is replaced too.
func TestReplacedKey_openSocket(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	newKey := b.mustQuery(t, agent, rotateDocument, "Idempotency-Key", rotationKey).get(t, "rotateApiKey.apiKey")
	conn := b.dialWebSocket(t, caller{}, http.Header{"X-Api-Key": {agent.key}, "Idempotency-Key": {rotationKey}})
	b.mustQuery(t, caller{agent.id, newKey}, rotateDocument, "Idempotency-Key", rotationKey+"2")
	for _, key := range []string{rotationKey, rotationKey + "2", rotationKey + "3", ""} {
		testutil.Must(t, conn.WriteJSON(map[string]any{"id": "1", "type": "subscribe", "payload": map[string]any{
			"query": rotateDocument, "extensions": map[string]string{"idempotencyKey": key},
		}}))
		var text strings.Builder
		for message := map[string]any{}; message["type"] != "complete" && message["type"] != "error"; {
			testutil.Must(t, conn.ReadJSON(&message))
			testutil.Must(t, json.NewEncoder(&text).Encode(message))
		}
		if !strings.Contains(text.String(), "UNAUTHENTICATED") {
			t.Errorf("with %q: got %s", key, text.String())
		}
	}
}

// TestIdempotencyKey_extension checks that an idempotencyKey in the extensions of an
// operation means the same as the header, over every transport.
func TestIdempotencyKey_extension(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	post := func(budget string) string {
		return `mutation { postTask(input: {title: "T", description: "D", budget: ` + budget + `}) { task { id } } }`
	}
	id := b.mustQuery(t, agent, post("2"), "Idempotency-Key", "post 1").get(t, "postTask.task.id")
	for name, send := range doors() {
		if got := send(t, b, agent, "post 1", post("2")).get(t, "postTask.task.id"); got != id {
			t.Errorf("%s: posted again", name)
		}
		assertError(t, name+" with another input", send(t, b, agent, "post 1", post("3")), models.IdempotencyReused, "")
	}
	b.mustQuery(t, agent, "{ viewer { wallet { balance } } }").assertFields(t, "viewer.wallet.balance", "98")

	send := func(extensions string, headers ...string) gqlResponse {
		body := []byte(`{"query":` + jsonText(t, post("2")) + `,"extensions":` + extensions + `}`)
		return b.send(t, agent, http.MethodPost, "", body, append([]string{"Content-Type", "application/json"}, headers...)...)
	}
	assertError(t, "a number", send(`{"idempotencyKey":1}`), models.InvalidInput, "idempotencyKey")
	assertError(t, "another key in the header", send(`{"idempotencyKey":"a"}`, "Idempotency-Key", "b"), models.InvalidInput, "idempotencyKey")
	assertError(t, "a key with invalid characters", send(`{"idempotencyKey":"a\tb"}`), models.InvalidInput, "Idempotency-Key")
	if got := send(`{"idempotencyKey":"post 1"}`); got.get(t, "postTask.task.id") != id || got.header.Get("Idempotency-Replayed") != "true" || got.Extensions["idempotencyReplayed"] != true {
		t.Errorf("got %v with %v", got.Data, got.Extensions)
	}
	if got := send(`{"idempotencyKey":null}`); got.Extensions != nil || got.get(t, "postTask.task.id") == id {
		t.Errorf("got %v with %v", got.Data, got.Extensions)
	}
}

// TestRegisterAgent_replayedOverSocket checks that an agent that lost the response to its
// registration gets its API key again over every transport.
func TestRegisterAgent_replayedOverSocket(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const document = `mutation { registerAgent(input: {name: "A", endpointUrl: "https://agent.example.com"}) { apiKey webhookSecret } }`
	first := b.mustQuery(t, caller{}, document, "Idempotency-Key", rotationKey)
	for name, send := range doors() {
		again := send(t, b, caller{}, rotationKey, document)
		again.assertFields(t, "registerAgent.apiKey", first.get(t, "registerAgent.apiKey"), "registerAgent.webhookSecret", first.get(t, "registerAgent.webhookSecret"))
		if name == "WebSocket" && again.Extensions["idempotencyReplayed"] != true {
			t.Errorf("the response is not marked: %v", again.Extensions)
		}
	}
}

func jsonText(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	testutil.Must(t, err)
	return string(text)
}
