package terminal_test

import (
	"os"
	"path/filepath"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// TestDev follows the instructions that dev prints: the reader's agent receives a task as a
// signed webhook, the clock moves, and no files remain.
func TestDev(t *testing.T) {
	t.Parallel()
	testserver.RequireTool(t, "curl")
	term := openTerminal(t)
	term.openWindow("dev")
	url := term.typeLine("dev", "agentmarket dev --addr 127.0.0.1:0 --pace 0s", `Server +(http://\S+)`)
	operator := term.waitFor("dev", 0, `Operator +(\S+)`)
	term.waitFor("dev", 0, "Activity:")
	term.openWindow("you")
	term.typeLine("you", "export AGENTMARKET_URL="+url, prompt)
	key := term.runLine("you", "agentmarket register Poster --json | grep apiKey", `"apiKey": "(\w+)"`)
	term.runLine("you", `agentmarket tasks post "Shout it" --budget 25 --capability demo --key `+key, `Balance: 9975 credits`)
	term.waitFor("dev", 0, `to you: signature verified(\n    .*)+\n    \{.*\}`)
	term.runLine("you", `curl -s `+url+`/operator/clock -d '{"advance":"25h"}' -H "Authorization: Bearer `+operator+`"`, `"ahead":"25h0m0s"`)
	term.interrupt("dev")
	term.typeLine("dev", "ls", prompt)
	term.compareGolden("testdata/dev.golden")
}

// TestListen: a task posted over REST is printed, and forwarded to a local receiver that
// verifies its signature.
func TestListen(t *testing.T) {
	t.Parallel()
	testserver.RequireTool(t, "curl")
	python := testserver.RequireTool(t, "python3")
	term, url := startMarket(t)
	receiver, err := os.ReadFile("../../../../examples/webhook-receiver-python/receiver.py")
	if err == nil {
		err = os.WriteFile(filepath.Join(term.dir, "receiver.py"), receiver, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	term.openWindow("poster")
	key := registerAgent(term, "poster", url, "Poster")
	term.openWindow("receiver")
	term.typeLine("receiver", "export AGENTMARKET_WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", prompt)
	address := term.typeLine("receiver", "PORT=0 "+filepath.Base(python)+" receiver.py", `listening at (http://\S+)`)
	term.openWindow("listen")
	term.typeLine("listen", "export AGENTMARKET_URL="+url, prompt)
	term.typeLine("listen", "export AGENTMARKET_WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", prompt)
	term.typeLine("listen", "agentmarket listen --after 0 --forward-to "+address, `Press Ctrl-C to stop`)
	body := `{"title":"Shout it","description":"hello","budget":25,"required_capabilities":["shouting"]}`
	term.runLine("poster", `curl -s `+url+`/api/tasks -H "X-API-Key: `+key+`" -H "Content-Type: application/json" -d '`+body+`'`, `"balance":75`)
	term.waitFor("receiver", 0, `task\.posted: \S+ "Shout it"`)
	term.waitFor("listen", 0, `204 No Content`)
	term.interrupt("listen")
	term.compareGolden("testdata/listen.golden")
}

// TestWorker: a registered agent completes a task with a program and earns nine tenths of
// 25, rounded down.
func TestWorker(t *testing.T) {
	t.Parallel()
	term, url := startMarket(t)
	term.openWindow("worker")
	registerAgent(term, "worker", url, "Shouter --capability shouting")
	term.typeLine("worker", "agentmarket worker --exec 'tr a-z A-Z'", `Press Ctrl-C to stop`)
	term.openWindow("poster")
	registerAgent(term, "poster", url, "Poster")
	term.runLine("poster", `agentmarket tasks post "Shout it" --description hello --budget 25 --capability shouting`, `Balance: 75 credits`)
	term.waitFor("worker", 0, `completed, balance 122 credits`)
	term.interrupt("worker")
	term.runLine("worker", "agentmarket wallet", `grant`)
	term.interrupt("serve")
	term.compareGolden("testdata/worker.golden")
}

// startMarket starts a server in a window.
func startMarket(t *testing.T) (term *terminal, url string) {
	t.Helper()
	term = openTerminal(t)
	term.openWindow("serve")
	url = term.typeLine("serve", "agentmarket serve --addr 127.0.0.1:0 --rate-limits off", `GraphQL +(http://\S+)/graphql`)
	term.waitFor("serve", 0, `Try: `)
	return term, url
}

// registerAgent registers an agent in a window and sets its API key there.
func registerAgent(term *terminal, window, url, arguments string) (key string) {
	term.t.Helper()
	term.typeLine(window, "export AGENTMARKET_URL="+url, prompt)
	key = term.runLine(window, "agentmarket register "+arguments, `API KEY +(\w+)`)
	term.typeLine(window, "export AGENTMARKET_API_KEY="+key, prompt)
	return key
}
