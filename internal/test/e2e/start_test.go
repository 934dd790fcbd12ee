package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestStart_errors: a start that cannot work ends with one line that says why, and changes
// nothing.
func TestStart_errors(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", nil)
	address := strings.TrimPrefix(server.URL, "http://")
	rows := []struct {
		args        []string
		code        int
		wantMessage string
	}{
		{[]string{"--addr=127.0.0.1:0", "--database=" + filepath.Join(server.Dir, "agentmarket.db")}, 1, "another process"},
		{[]string{"--addr=" + address}, 1, "address already in use"},
		{[]string{"--addr=127.0.0.1:0", "--database=" + filepath.Join(t.TempDir(), "none", "a.db")}, 1, "no such file or directory"},
		{[]string{"--addr=127.0.0.1:0", "--database=" + t.TempDir()}, 1, "is a directory"},
		{[]string{"--addr=127.0.0.1:0", "--database=mysql://localhost/market", "--secret-key=sixteen letters!"}, 1, "give a postgres:// address"},
		{[]string{"--addr=127.0.0.1:0", "--database=postgres://localhost/market"}, 2, "secret-key: must be set for PostgreSQL"},
		{[]string{"--colour"}, 2, "unknown flag --colour"},
		{[]string{"--lease=1s"}, 2, "lease: must be at least 1m"},
		{[]string{"dance"}, 2, "unexpected argument dance"},
		{[]string{"verify", "--database=" + filepath.Join(t.TempDir(), "none.db")}, 1, "no such file or directory"},
	}
	for _, row := range rows {
		testserver.ExpectExit(t, row.code, row.wantMessage, row.args...)
	}
	if status, text := server.Do(http.MethodGet, "/readyz", "", ""); status != http.StatusOK {
		t.Errorf("the running server: %d %s", status, text)
	}
	server.Verify()
}

// TestStart_damagedDatabase: serve and verify reject a damaged file and leave it
// unchanged.
func TestStart_damagedDatabase(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", nil)
	server.Stop()
	valid := testutil.ReadFile(t, filepath.Join(server.Dir, "agentmarket.db"))
	for name, row := range map[string]struct{ content, wantMessage string }{
		"not a database":     {strings.Repeat("not a database. ", 1000), "not a database"},
		"truncated":          {valid[:len(valid)/2], "malformed"},
		"overwritten pages":  {valid[:8192] + strings.Repeat("\xff", 30_000) + valid[38_192:], "damaged"},
		"overwritten schema": {valid[:100] + strings.Repeat("\xff", 400) + valid[500:], "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "damaged.db")
			if err := os.WriteFile(file, []byte(row.content), 0o600); err != nil {
				t.Fatal(err)
			}
			testserver.ExpectExit(t, 1, row.wantMessage, "--addr=127.0.0.1:0", "--database="+file)
			testserver.ExpectExit(t, 1, "agentmarket: ", "verify", "--database="+file)
			if testutil.ReadFile(t, file) != row.content {
				t.Error("the file was changed")
			}
		})
	}
}
