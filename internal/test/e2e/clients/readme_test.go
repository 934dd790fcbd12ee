package clients_test

import (
	"fmt"
	"os"
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
	door := startProxy(t, server)
	agent := server.Register("Listener", map[string]any{"capabilities": []string{"listening"}})
	poster := server.Register("Poster", nil)
	const documented = "ws://127.0.0.1:8080/"
	code := readmeCode(t, "Listen", "js")
	if !strings.Contains(code, documented) {
		t.Fatalf("README.md does not connect to %s", documented)
	}
	code = strings.ReplaceAll(code, documented, strings.Replace(door.url, "http", "ws", 1)+"/")
	client := runModule(t, code, []string{"API_KEY=" + agent.Key})

	var posted, heard []string
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
			heard = append(heard, string(found[1]))
		}
	}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	tooLong := time.After(testutil.Timeout)
	for len(heard) == 0 { // it does not report when it is subscribed
		select {
		case line := <-client.lines:
			hear(line)
		case <-again.C:
			postOne()
		case <-tooLong:
			t.Fatal("no event arrived")
		}
	}
	door.closeConnections()
	for range 3 {
		postOne()
	}
	for !slices.Contains(heard, posted[len(posted)-1]) {
		select {
		case line := <-client.lines:
			hear(line)
		case <-tooLong:
			t.Fatalf("received %q, posted %q", heard, posted)
		}
	}
	if since := slices.Index(posted, heard[0]); !slices.Equal(heard, posted[since:]) {
		t.Errorf("received %q, posted %q", heard, posted)
	}

	nobody := runModule(t, code, []string{"API_KEY=nobody's"})
	select {
	case line, more := <-nobody.lines:
		if more {
			t.Errorf("with a wrong key it prints %s", line)
		}
	case <-time.After(testutil.Timeout):
		t.Error("with a wrong key it keeps running")
	}
}

// readmeCode is the first code of a kind in a section of README.md.
func readmeCode(t *testing.T, section, kind string) string {
	t.Helper()
	text, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "## "+section+"\n")
	_, code, begins := strings.Cut(rest, "```"+kind+"\n")
	code, _, ends := strings.Cut(code, "```")
	if !found || !begins || !ends {
		t.Fatalf("README.md has no %s under %q", kind, section)
	}
	return code
}
