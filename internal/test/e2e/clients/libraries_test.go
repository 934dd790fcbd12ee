package clients_test

import (
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// libraryResult is a line that use_library.mjs prints.
type libraryResult struct {
	Step, Name, Failure string
	Same, More          bool
	Balance             int
}

// TestLibraries uses the server like an application does, with the GraphQL libraries that
// applications use: with their caches, their headers and their own ways to fail.
func TestLibraries(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"@apollo/client", "@urql/core", "graphql-request", "relay-runtime"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testserver.Start(t)
			poster := server.Register("Poster", nil)
			agent := server.Register("Application", map[string]any{"capabilities": []string{"listening"}})
			testutil.Must(t, postTask(server, poster.Key, "First", 2, "listening"))
			client := runScript(t, "use_library.mjs", name, server.URL+"/graphql", agent.Key)
			for _, want := range []libraryResult{
				{Step: "query", Name: "Application"},
				{Step: "mutation", Name: "Mine", Same: true, Balance: 80},
				{Step: "connection", Name: "Application", More: true},
				{Step: "an error of the market", Failure: "FORBIDDEN"},
				{Step: "an invalid request", Failure: "INVALID_INPUT"},
				{Step: "an unknown key", Failure: "UNAUTHENTICATED"},
				{Step: "event", Name: "First"},
			} {
				testutil.Equal(t, name, nextLine[libraryResult](t, client), want)
			}
			testutil.Must(t, postTask(server, poster.Key, "Second", 2, "listening"))
			testutil.Equal(t, name, nextLine[libraryResult](t, client), libraryResult{Step: "event", Name: "Second"})
			testutil.Equal(t, name, nextLine[libraryResult](t, client), libraryResult{Step: "end"})
			if line, more := <-client.lines; more {
				t.Errorf("after the end it prints %s", line)
			}
			server.Verify()
		})
	}
}
