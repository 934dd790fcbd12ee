package e2e_test

import (
	"crypto/sha256"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/cli"
	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// invalidCall is a valid command line that cannot be executed.
type invalidCall struct {
	code    int
	message string
	args    string
}

// invalidCalls has calls of every command. The folder contains agentmarket.db, a market;
// text.db, not a database; and settings.json, with an unknown setting.
func invalidCalls() map[string][]invalidCall {
	const nobody = "--url=http://127.0.0.1:1"
	unreachable := []invalidCall{{1, "no server at http://127.0.0.1:1", nobody}, {2, "is not a URL", "--url=nowhere"}}
	remote := func(args string) (calls []invalidCall) {
		for _, call := range unreachable {
			calls = append(calls, invalidCall{call.code, call.message, args + " " + call.args})
		}
		return calls
	}
	calls := map[string][]invalidCall{
		"serve": {
			{1, "another address with --addr", "--addr=256.0.0.1:1"},
			{1, "no such file or directory", "--addr=127.0.0.1:0 --database=missing/market.db"},
			{1, "file is not a database", "--addr=127.0.0.1:0 --database=text.db"},
			{1, "trusted-documents: ", "--addr=127.0.0.1:0 --trusted-documents=missing.json"},
			{1, "trusted-documents: ", "--addr=127.0.0.1:0 --database=new.db --trusted-documents=text.db"},
			{1, "operator-key-file: ", "--addr=127.0.0.1:0 --operator-key-file=missing"},
			{1, "operator-key-file: ", "--addr=127.0.0.1:0 --database=new.db --operator-key-file=settings.json"},
			{1, "connection refused", "--addr=127.0.0.1:0 --secret-key=0123456789abcdef --database=postgres://somebody:secret@127.0.0.1:1/market"},
			{2, "lease: must be at least 1m", "--lease=1s"},
			{2, "leese: unknown setting", "--config=settings.json"},
		},
		"dev": {
			{2, "is not an address like 127.0.0.1:8080", "--addr=nowhere"},
			{2, "is not a loopback address", "--addr=0.0.0.0:8080"},
			{2, "pace: must not be negative", "--pace=-1s"},
			{1, "another address with --addr", "--addr=127.0.0.1:99999"},
		},
		"config": {
			{2, "lease: must be at least 1m", "--lease=1s"},
			{2, "leese: unknown setting", "--config=settings.json"},
			{2, "missing.json: no such file or directory", "--config=missing.json"},
		},
		"copy": {
			{2, "--from must be the path of a SQLite database", "--from=agentmarket.db --to=new.db"},
			{1, "no such file or directory", "--from=missing.db --to=postgres://127.0.0.1:1/market"},
			{1, "connection refused", "--from=agentmarket.db --to=postgres://127.0.0.1:1/market"},
		},
		"backup": {
			{1, "agentmarket.db already exists", "--to=agentmarket.db"},
			{1, "no such file or directory", "--database=missing.db --to=new.db"},
			{1, "no such file or directory", "--to=missing/new.db"},
			{1, "file is not a database", "--database=text.db --to=new.db"},
			{1, "pg_dump", "--database=postgres://127.0.0.1:1/market --to=new.db"},
		},
		"restore": {
			{1, "agentmarket.db already exists", "--from=agentmarket.db"},
			{1, "no such file or directory", "--from=missing.db --database=new.db"},
			{1, "file is not a database", "--from=text.db --database=new.db"},
		},
		"rekey": {
			{1, "no such file or directory", "--database=missing.db"},
			{1, "file is not a database", "--database=text.db"},
			{2, "secret-key: must have at least 16 characters", "--secret-key=short"},
			{2, "--old-secret-key", "--old-secret-key=0123456789abcdef"},
			{2, "--secret-key", "--database=postgres://127.0.0.1:1/market"},
		},
		"health":     {{1, "not ready: ", nobody}, {2, "is not a URL", "--url=nowhere"}},
		"schema":     {{2, "unexpected argument", "surplus"}},
		"openapi":    {{2, "leese: unknown setting", "--config=settings.json"}},
		"completion": {{2, "must be one of", "tcsh"}},
		"version":    {{2, "unexpected argument", "surplus"}},

		"register":       remote("Name"),
		"agents":         remote(""),
		"tasks list":     remote(""),
		"tasks show":     remote("1"),
		"tasks post":     remote("Title --budget=5"),
		"tasks accept":   remote("1"),
		"tasks complete": remote("1 Result"),
		"tasks release":  remote("1"),
		"tasks cancel":   remote("1"),
		"tasks rate":     remote("1 5"),
		"wallet":         remote(""),
		"execute":        remote("1 Work --budget=5"),
		"worker":         append(remote("--exec=cat"), invalidCall{2, "--parallel must be at least 1", "--exec=cat --parallel=0"}),
		"listen":         {{2, "is not a URL", "--url=nowhere"}, {2, "is not a URL", "--forward-to=nowhere"}},
		"trigger":        {{1, "connection refused", "task.posted http://127.0.0.1:1"}, {2, "is not a URL", "task.posted nowhere"}},
	}
	for _, command := range []string{"verify", "migrate"} {
		calls[command] = []invalidCall{
			{1, "no such file or directory", "--database=missing.db"},
			{1, "file is not a database", "--database=text.db"},
			{1, "give a postgres:// address", "--database=mysql://somebody:secret@127.0.0.1/market"},
			{1, "connection refused", "--database=postgres://somebody:secret@127.0.0.1:1/market"},
			{2, "leese: unknown setting", "--config=settings.json"},
		}
	}
	return calls
}

// TestInvalidInput_commands: each call prints one line without a password, exits with the
// documented code, and changes or creates no file.
func TestInvalidInput_commands(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", nil)
	server.Stop()
	for name, text := range map[string]string{"text.db": "This is no database, and no list of documents either.\n", "settings.json": `{"leese": "2h"}`} {
		if err := os.WriteFile(filepath.Join(server.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := fileDigests(t, server.Dir)
	model, err := cli.Model()
	if err != nil {
		t.Fatal(err)
	}
	calls := invalidCalls()
	for _, node := range model.Leaves(false) {
		if len(calls[node.Path()]) == 0 {
			t.Errorf("%s has no invalid calls: add some", node.Path())
		}
		for _, call := range calls[node.Path()] {
			args := append(strings.Fields(node.Path()), strings.Fields(call.args)...)
			text, code := testserver.Run(t, server.Dir, args...)
			if code != call.code || !strings.HasPrefix(text, "agentmarket: ") || !strings.Contains(text, call.message) || strings.Count(text, "\n") != 1 {
				t.Errorf("%q ended with %d, want %d, and printed %q, want %q", args, code, call.code, text, call.message)
			}
			if strings.Contains(text, "secret@") || strings.Contains(text, "goroutine") {
				t.Errorf("%q printed %q", args, text)
			}
			if after := fileDigests(t, server.Dir); !maps.Equal(before, after) {
				t.Errorf("%q: files are %v, were %v", args, after, before)
				before = after
			}
		}
		delete(calls, node.Path())
	}
	for command := range calls {
		t.Errorf("unknown command %q", command)
	}
}

// fileDigests returns the SHA-256 of each file in a folder, except lock files.
func fileDigests(t *testing.T, folder string) map[string][sha256.Size]byte {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][sha256.Size]byte{}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".lock") {
			found[entry.Name()] = sha256.Sum256([]byte(testutil.ReadFile(t, filepath.Join(folder, entry.Name()))))
		}
	}
	return found
}
