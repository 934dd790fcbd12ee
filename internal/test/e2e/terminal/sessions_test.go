package terminal_test

import (
	"os"
	"path/filepath"
	"testing"

	"agentmarket.space/server/internal/test/e2e/program"
)

// TestDev types what dev says: a task for the reader's agent comes as a signed webhook,
// the clock moves, and at the end nothing is left.
func TestDev(t *testing.T) {
	t.Parallel()
	program.Tool(t, "curl")
	term := open(t)
	term.window("dev")
	url := term.enter("dev", "agentmarket dev --addr 127.0.0.1:0 --pace 0s", `Market +(http://\S+)`)
	operator := term.await("dev", 0, `Operator +(\S+)`)
	term.await("dev", 0, "What happens meanwhile")
	term.window("you")
	term.enter("you", "export AGENTMARKET_URL="+url, prompt)
	key := term.run("you", "agentmarket register Poster --json | grep apiKey", `"apiKey": "(\w+)"`)
	term.run("you", `agentmarket tasks post "Shout it" --budget 25 --capability demo --key `+key, `You have 9975 credits`)
	term.await("dev", 0, `to you: signature verified(\n    .*)+\n    \{.*\}`)
	term.run("you", `curl -s `+url+`/operator/clock -d '{"advance":"25h"}' -H "Authorization: Bearer `+operator+`"`, `"ahead":"25h0m0s"`)
	term.interrupt("dev")
	term.enter("dev", "ls", prompt)
	term.golden("testdata/dev.golden")
}

// TestListen: a task that is posted over REST is heard, and forwarded to a receiver on
// this machine, which verifies that it is the market's.
func TestListen(t *testing.T) {
	t.Parallel()
	program.Tool(t, "curl")
	python := program.Tool(t, "python3")
	term, url := serve(t)
	receiver, err := os.ReadFile("../../../../examples/webhook-receiver-python/receiver.py")
	if err == nil {
		err = os.WriteFile(filepath.Join(term.dir, "receiver.py"), receiver, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	term.window("poster")
	key := register(term, "poster", url, "Poster")
	term.window("receiver")
	term.enter("receiver", "export AGENTMARKET_WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", prompt)
	address := term.enter("receiver", "PORT=0 "+filepath.Base(python)+" receiver.py", `listening at (http://\S+)`)
	term.window("listen")
	term.enter("listen", "export AGENTMARKET_URL="+url, prompt)
	term.enter("listen", "export AGENTMARKET_WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", prompt)
	term.enter("listen", "agentmarket listen --after 0 --forward-to "+address, `Interrupt to end`)
	body := `{"title":"Shout it","description":"hello","budget":25,"required_capabilities":["shouting"]}`
	term.run("poster", `curl -s `+url+`/api/tasks -H "X-API-Key: `+key+`" -H "Content-Type: application/json" -d '`+body+`'`, `"balance":75`)
	term.await("receiver", 0, `task\.posted: \S+ "Shout it"`)
	term.await("listen", 0, `204 No Content`)
	term.interrupt("listen")
	term.golden("testdata/listen.golden")
}

// TestWorker: an agent is registered, does a task with a program and is paid nine tenths
// of 25, rounded down.
func TestWorker(t *testing.T) {
	t.Parallel()
	term, url := serve(t)
	term.window("worker")
	register(term, "worker", url, "Shouter --capability shouting")
	term.enter("worker", "agentmarket worker --exec 'tr a-z A-Z'", `Interrupt to end`)
	term.window("poster")
	register(term, "poster", url, "Poster")
	term.run("poster", `agentmarket tasks post "Shout it" --description hello --budget 25 --capability shouting`, `You have 75 credits`)
	term.await("worker", 0, `completed, you have 122 credits`)
	term.interrupt("worker")
	term.run("worker", "agentmarket wallet", `grant`)
	term.interrupt("serve")
	term.golden("testdata/worker.golden")
}

// serve serves a market in a window.
func serve(t *testing.T) (term *terminal, url string) {
	t.Helper()
	term = open(t)
	term.window("serve")
	url = term.enter("serve", "agentmarket serve --addr 127.0.0.1:0 --rate-limits off", `GraphQL +(http://\S+)/graphql`)
	term.await("serve", 0, `Try: `)
	return term, url
}

// register registers an agent in a window, which acts as it from then on.
func register(term *terminal, window, url, arguments string) (key string) {
	term.t.Helper()
	term.enter(window, "export AGENTMARKET_URL="+url, prompt)
	key = term.run(window, "agentmarket register "+arguments, `API KEY +(\w+)`)
	term.enter(window, "export AGENTMARKET_API_KEY="+key, prompt)
	return key
}
