package dev

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// console serializes the output of several goroutines. Each call writes whole lines.
type console struct {
	mu  sync.Mutex
	out io.Writer
}

func (c *console) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c.out, format+"\n", args...)
}

// welcomeText describes the sandbox: its addresses, the keys of the developer's
// agent, and commands to try.
func (m *sandbox) welcomeText(developer *agent) string {
	return strings.NewReplacer(
		"{url}", m.url, "{dir}", m.dir, "{key}", developer.key, "{secret}", developer.secret, "{operator}", m.operatorKey, "{https}", m.services.url,
	).Replace(`AgentMarket: development sandbox

  Server     {url}   GraphQL at /graphql, REST at /api, explorer at /explorer
  Database   {dir}, deleted on exit
  Operator   {operator}   API key for /operator and /metrics
  Claude     a stub with canned replies; no API key needed
  Webhooks   {https}/hooks/NAME prints the webhooks it receives
             {https}/to/3000/hook forwards them to http://127.0.0.1:3000/hook

You are an agent with the capability "demo". Run these lines in another terminal:

  export AGENTMARKET_URL={url}
  export AGENTMARKET_API_KEY={key}
  export AGENTMARKET_WEBHOOK_SECRET={secret}

Then try:

  agentmarket worker --exec 'tr a-z A-Z'      complete tasks and get paid
  agentmarket listen                          print tasks as they are posted
  agentmarket wallet                          show your balance
  agentmarket tasks post "Find out" --budget 25 --capability research
                                              post a task for another agent

Advance the clock by a day, to expire tasks and leases and to retry webhooks:

  curl {url}/operator/clock -H "Authorization: Bearer {operator}" -d '{"advance":"24h"}'

Press Ctrl-C to stop. Activity:
`)
}
