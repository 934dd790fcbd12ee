package graph

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestIdempotencyKey repeats each mutation with one key: it happens once and the first
// response is replayed. The same key with another input or mutation is rejected.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const key = "a key of sixteen characters or more"
	onTask := func(status models.Status, first, other string) func(*testing.T, participants) (string, string) {
		return func(t *testing.T, c participants) (string, string) {
			t.Helper()
			id := b.createTask(t, c, status)
			if other == "" { // the only input is the task
				return fmt.Sprintf("taskId: %q", id), fmt.Sprintf("taskId: %q", b.createTask(t, c, status))
			}
			return fmt.Sprintf("taskId: %q, %s", id, first), fmt.Sprintf("taskId: %q, %s", id, other)
		}
	}
	inputs := func(first, other string) func(*testing.T, participants) (string, string) {
		return func(*testing.T, participants) (string, string) { return first, other }
	}
	rows := map[string]struct {
		inputs func(*testing.T, participants) (first, other string)
		output string
	}{
		"registerAgent":       {inputs(`name: "A"`, `name: "B"`), "apiKey agent { id }"},
		"updateAgent":         {inputs(`name: "A"`, `name: "B"`), "agent { id name }"},
		"postTask":            {inputs(`title: "T", description: "D", budget: 2`, `title: "T", description: "D", budget: 3`), "task { id } wallet { balance }"},
		"acceptTask":          {onTask(models.Open, "", ""), "task { id attempt }"},
		"completeTask":        {onTask(models.Assigned, `result: "R"`, `result: "Q"`), "task { id } wallet { balance }"},
		"cancelTask":          {onTask(models.Open, "", ""), "task { id } wallet { balance }"},
		"extendTask":          {onTask(models.Assigned, "leaseMinutes: 5", "leaseMinutes: 6"), "task { id leaseUntil }"},
		"releaseTask":         {onTask(models.Assigned, "", ""), "task { id status }"},
		"rateTask":            {onTask(models.Completed, "score: 4", "score: 5"), "task { rating { score } }"},
		"setWebhook":          {inputs(`url: "https://a.example.com/1"`, `url: "https://a.example.com/2"`), "webhook { maskedUrl }"},
		"redeliverWebhooks":   {inputs(`since: "2026-01-01T00:00:00Z"`, `since: "2026-01-02T00:00:00Z"`), "redeliveredCount"},
		"rotateWebhookSecret": {inputs("overlapMinutes: 1", "overlapMinutes: 2"), "secret"},
		"execute": {func(_ *testing.T, c participants) (string, string) {
			hire := fmt.Sprintf(`agentId: %q, budget: 2`, c.stranger.id)
			return hire + `, taskDescription: "D"`, hire + `, taskDescription: "E"`
		}, "task { id } result wallet { balance }"},
		"startExecution": {func(_ *testing.T, c participants) (string, string) {
			hire := fmt.Sprintf(`agentId: %q, budget: 2`, c.stranger.id)
			return hire + `, taskDescription: "D"`, hire + `, taskDescription: "E"`
		}, "task { id } wallet { balance }"},
		"redeliverWebhook": {func(t *testing.T, c participants) (string, string) {
			t.Helper()
			return fmt.Sprintf("deliveryId: %q", b.createDelivery(t, c)), fmt.Sprintf("deliveryId: %q", b.createDelivery(t, c))
		}, "delivery { id }"},
	}
	for _, field := range executableSchema().Schema().Mutation.Fields {
		if _, ok := rows[field.Name]; !ok && len(field.Arguments) > 0 {
			t.Errorf("%s is not tested with a key", field.Name)
		}
	}
	posters := map[string]bool{"postTask": true, "cancelTask": true, "rateTask": true}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := b.registerParticipants(t)
			by := c.worker
			if posters[name] {
				by = c.poster
			}
			first, other := row.inputs(t, c)
			document := func(input string) string {
				return "mutation { " + name + "(input: {" + input + "}) { " + row.output + " } }"
			}
			initial := b.mustQuery(t, by, document(first), "Idempotency-Key", key)
			if initial.header.Get("Idempotency-Replayed") != "" {
				t.Error("the first response is marked as replayed")
			}
			for range 2 {
				again := b.mustQuery(t, by, document(first), "Idempotency-Key", key)
				if !reflect.DeepEqual(again.Data, initial.Data) || again.header.Get("Idempotency-Replayed") != "true" {
					t.Errorf("got %v (replayed: %q), want %v", again.Data, again.header.Get("Idempotency-Replayed"), initial.Data)
				}
			}
			assertError(t, "another input", b.query(t, by, document(other), "Idempotency-Key", key), models.IdempotencyReused, "")
			if name != "registerAgent" { // its keys are separate
				assertError(t, "another mutation", b.query(t, by, "mutation { removeWebhook { viewer { ownerEmail } } }", "Idempotency-Key", key), models.IdempotencyReused, "")
			}
		})
	}
}

// TestIdempotencyKey_invalid checks keys that are rejected.
func TestIdempotencyKey_invalid(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	const post = `postTask(input: {title: "T", description: "D", budget: 2}) { task { id } }`
	for _, document := range []string{
		`mutation { a: ` + post + ` b: ` + post + ` }`,
		`mutation { ... on Mutation { a: ` + post + ` b: ` + post + ` } }`,
		`mutation { a: ` + post + ` ...f } fragment f on Mutation { b: ` + post + ` }`,
	} {
		two := b.query(t, agent, document, "Idempotency-Key", "k")
		if two.code() != string(models.InvalidInput) || two.Data != nil {
			t.Errorf("%s with one key: %v, %v", document, two.Data, two.Errors)
		}
	}
	b.mustQuery(t, b.registerAgent(t, ""), `mutation { __typename `+post+` }`, "Idempotency-Key", "one effect")
	for _, key := range []string{"\xff\xfe", "k\u00e9", "a\tb"} {
		assertError(t, "a key with invalid characters", b.query(t, agent, `mutation { `+post+` }`, "Idempotency-Key", key), models.InvalidInput, "Idempotency-Key")
	}
	long := b.query(t, agent, `mutation { `+post+` }`, "Idempotency-Key", fmt.Sprintf("%0300d", 1))
	assertError(t, "a key that is too long", long, models.InvalidInput, "Idempotency-Key")
	short := b.query(t, caller{}, `mutation { registerAgent(input: {name: "A"}) { apiKey } }`, "Idempotency-Key", "guess")
	assertError(t, "a registration with a short key", short, models.InvalidInput, "Idempotency-Key")
	b.mustQuery(t, agent, "{ viewer { wallet { balance } } }").assertFields(t, "viewer.wallet.balance", "100")

	tooMuch := b.query(t, agent, `mutation { postTask(input: {title: "T", description: "D", budget: 1000}) { task { id } } }`, "Idempotency-Key", "k")
	assertError(t, "a budget over the balance", tooMuch, models.InsufficientFunds, "")
	b.mustQuery(t, agent, `mutation { `+post+` }`, "Idempotency-Key", "k") // a failed mutation does not use the key up
}

// TestIdempotencyKey_ignoredFromSocketHandshake checks that a key in the handshake does not
// apply to the operations of a socket.
func TestIdempotencyKey_ignoredFromSocketHandshake(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	header := http.Header{"Idempotency-Key": {"k"}}
	conn := b.dialWebSocket(t, agent, header)
	for range 2 {
		testutil.Must(t, conn.WriteJSON(map[string]any{"id": "1", "type": "subscribe", "payload": map[string]string{
			"query": `mutation { postTask(input: {title: "T", description: "D", budget: 2}) { wallet { balance } } }`,
		}}))
		for message := map[string]any{}; message["type"] != "complete"; {
			testutil.Must(t, conn.ReadJSON(&message))
		}
	}
	b.mustQuery(t, agent, "{ viewer { wallet { balance } } }").assertFields(t, "viewer.wallet.balance", "96")
}
