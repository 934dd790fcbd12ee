package clients_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestReadme runs the subscription example of README.md unchanged except for the address.
// It resumes when its connection is closed, and ends with a wrong key.
func TestReadme(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, "AGENTMARKET_STARTING_CREDITS=100000")
	proxy := startProxy(t, server)
	agent := server.Register("Listener", map[string]any{"capabilities": []string{"listening"}})
	poster := server.Register("Poster", nil)
	const documented = "ws://127.0.0.1:8080/"
	code := testutil.CodeBlock(t, "../../../../README.md", "Listen", "js")
	if !strings.Contains(code, documented) {
		t.Fatalf("README.md does not connect to %s", documented)
	}
	code = strings.ReplaceAll(code, documented, strings.Replace(proxy.url, "http", "ws", 1)+"/")
	client := runModule(t, code, []string{"API_KEY=" + agent.Key})

	var posted, received []string
	postOne := func() {
		t.Helper()
		title := fmt.Sprintf("Task %d", len(posted)+1)
		if err := postTask(server, poster.Key, title, 10, "listening"); err != nil {
			t.Fatal(err)
		}
		posted = append(posted, title)
	}
	title := regexp.MustCompile(`title: '([^']+)'`)
	hear := func(line []byte) {
		if found := title.FindSubmatch(line); found != nil {
			received = append(received, string(found[1]))
		}
	}
	repost := time.NewTicker(50 * time.Millisecond)
	defer repost.Stop()
	timeout := time.After(testutil.Timeout)
	for len(received) == 0 { // it does not report when it is subscribed
		select {
		case line := <-client.lines:
			hear(line)
		case <-repost.C:
			postOne()
		case <-timeout:
			t.Fatal("no event arrived")
		}
	}
	proxy.closeConnections()
	for range 3 {
		postOne()
	}
	for !slices.Contains(received, posted[len(posted)-1]) {
		select {
		case line := <-client.lines:
			hear(line)
		case <-timeout:
			t.Fatalf("received %q, posted %q", received, posted)
		}
	}
	if since := slices.Index(posted, received[0]); !slices.Equal(received, posted[since:]) {
		t.Errorf("received %q, posted %q", received, posted)
	}

	unauthenticated := runModule(t, code, []string{"API_KEY=nobody's"})
	select {
	case line, more := <-unauthenticated.lines:
		if more {
			t.Errorf("with a wrong key it prints %s", line)
		}
	case <-time.After(testutil.Timeout):
		t.Error("with a wrong key it keeps running")
	}
}
