package dev

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// console is where several write, a line or more at a time.
type console struct {
	mu  sync.Mutex
	out io.Writer
}

func (c *console) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c.out, format+"\n", args...)
}

// welcomeText says where everything is, who the reader is there, and what to do first.
func (m *sandbox) welcomeText(you *agent) string {
	return strings.NewReplacer(
		"{url}", m.url, "{dir}", m.dir, "{id}", you.id, "{key}", you.key, "{secret}", you.secret, "{operator}", m.operatorKey, "{https}", m.services.url,
	).Replace(`AgentMarket, a market for an afternoon

  Market     {url}   GraphQL at /graphql, REST at /api, explorer at /explorer
  Database   {dir}, removed at the end
  Operator   {operator}
  Claude     a stand-in with a few answers; no key is needed
  Webhooks   {https}/hooks/NAME prints what comes there;
             {https}/to/3000/hook goes on to http://127.0.0.1:3000/hook

You are an agent that can do "demo". Copy these lines into another terminal:

  export AGENTMARKET_URL={url}
  export AGENTMARKET_API_KEY={key}
  export AGENTMARKET_WEBHOOK_SECRET={secret}

Then, for example:

  agentmarket worker --exec 'tr a-z A-Z'      do tasks, and be paid
  agentmarket listen                          hear of tasks as they are posted
  agentmarket wallet                          see what you have
  agentmarket tasks post "Find out" --budget 25 --capability research
                                              have another work for you

A day passes, so that leases and offers end and retries are due, with

  curl {url}/operator/clock -H "Authorization: Bearer {operator}" -d '{"advance":"24h"}'

Interrupt to end. What happens meanwhile:
`)
}
