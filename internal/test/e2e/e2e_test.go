// Package e2e_test knows the server as its users do: a program, an address,
// the documented lines.
package e2e_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

func TestMain(m *testing.M) { testserver.Main(m) }

const (
	quickRetries     = "AGENTMARKET_WEBHOOK_RETRIES=50ms,50ms,50ms,50ms"
	postTaskMutation = `mutation($capability: String!) {
		postTask(input: {title: "Summarize this paper", description: "Full text...", budget: 25, requiredCapabilities: [$capability]}) { task { id createdAt } }
	}`
)

// storeSettings is the settings of a server on the engine that is tested.
func storeSettings(t *testing.T) []string {
	t.Helper()
	if !services.OnPostgres() {
		return nil
	}
	return []string{"AGENTMARKET_DATABASE=" + services.NewPostgresDatabase(t), "AGENTMARKET_SECRET_KEY=a key for tests only"}
}

// delivery is a request that a receiver got.
type delivery struct {
	header http.Header
	body   string
}

// startReceiver takes deliveries over TLS and answers as it is told to.
func startReceiver(t *testing.T, answer http.HandlerFunc) (got <-chan delivery, url string, env []string) {
	t.Helper()
	all := make(chan delivery, 1000)
	url, env = testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		all <- delivery{r.Header, string(body)}
		if answer != nil {
			answer(w, r)
		}
	}))
	return all, url, env
}

func nextDelivery(t *testing.T, got <-chan delivery) delivery {
	t.Helper()
	select {
	case one := <-got:
		return one
	case <-time.After(testutil.Timeout):
		t.Fatal("no delivery came")
		return delivery{}
	}
}

// postedTask is a task that some agent has posted.
type postedTask struct{ ID, CreatedAt string }

func mustPostTask(t *testing.T, server *testserver.Server, key, capability string) postedTask {
	t.Helper()
	var data struct{ PostTask struct{ Task postedTask } }
	if err := server.Query(key, postTaskMutation, map[string]any{"capability": capability}, &data); err != nil {
		t.Fatal(err)
	}
	return data.PostTask.Task
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readmeCode is the first code of a kind in a section of README.md.
func readmeCode(t *testing.T, title, kind string) string {
	t.Helper()
	_, section, found := strings.Cut(readFile(t, "../../../README.md"), "## "+title+"\n")
	_, code, begins := strings.Cut(section, "```"+kind+"\n")
	code, _, ends := strings.Cut(code, "```")
	if !found || !begins || !ends {
		t.Fatalf("README.md has no %s under %q", kind, title)
	}
	return code
}
