package e2e_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// TestBackup takes backups while agents post tasks. Each backup restores without violations
// and has every task acknowledged before it started. A restored market works with the same
// keys, balances and cursors.
func TestBackup(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))
	var mu sync.Mutex
	var posted []string
	acknowledged := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clip(posted)
	}
	stop := make(chan struct{})
	var posting sync.WaitGroup
	posters := make([]testserver.Agent, 3)
	for i := range posters {
		posters[i] = server.Register("Poster", nil)
		posting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				task := server.PostTask(posters[i].Key, "x")
				mu.Lock()
				posted = append(posted, task.ID)
				mu.Unlock()
			}
		})
	}
	last := ""
	rounds := trusttest.Scale(3, 20, 200)
	for round := range rounds {
		testutil.Eventually(t, "some more posts", func() bool { return len(acknowledged()) > 10*round || t.Failed() })
		before := acknowledged()
		backup := filepath.Join(t.TempDir(), "backup.db")
		if text, code := testserver.Run(t, server.Dir, "backup", "--to", backup); code != 0 {
			t.Fatalf("backup: exit %d\n%s", code, text)
		}
		last = filepath.Join(t.TempDir(), "agentmarket.db")
		text, code := testserver.Run(t, filepath.Dir(last), "restore", "--from", backup)
		if code != 0 || !strings.Contains(text, `"violations": []`) {
			t.Fatalf("restore: exit %d\n%s", code, text)
		}
		file, err := os.ReadFile(last)
		if err != nil {
			t.Fatal(err)
		}
		const never = "00000000-0000-7000-8000-000000000000" // not a task: shows that the search works
		if missing := missingIDs(file, append(before, never)); !slices.Equal(missing, []string{never}) {
			t.Errorf("backup %d: of %d acknowledged tasks these are missing: %v", round, len(before), missing)
		}
	}
	close(stop)
	posting.Wait()
	server.Stop()

	restored := testserver.Start(t, "AGENTMARKET_DATABASE="+last, "AGENTMARKET_SECRET_KEY="+strings.TrimSpace(testutil.ReadFile(t, filepath.Join(server.Dir, "agentmarket.db.key"))))
	restored.PostTask(posters[0].Key, "x")
	if status, text := restored.Do(http.MethodGet, "/api/wallet", posters[0].Key, ""); status != http.StatusOK {
		t.Errorf("the wallet: %d %s", status, text)
	}
	restored.Verify()
	trusttest.Report(t, "backup", "%d of %d backups, taken while %d tasks were posted, restore and verify", rounds, rounds, len(posted))
}

// missingIDs returns the IDs that a file does not contain. IDs begin with a timestamp, so
// one search for each prefix finds all IDs that share it.
func missingIDs(file []byte, ids []string) []string {
	const time = 6 // digits that do not change for hours
	has, sought := map[string]bool{}, map[string]bool{}
	for _, id := range ids {
		if sought[id[:time]] {
			continue
		}
		sought[id[:time]] = true
		for rest := file; ; rest = rest[1:] {
			at := bytes.Index(rest, []byte(id[:time]))
			if at < 0 || len(rest) < at+len(id) {
				break
			}
			rest = rest[at:]
			has[string(rest[:len(id)])] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return has[id] })
}

// TestBackup_errors: backup and restore overwrite nothing and reject what is not a valid
// database.
func TestBackup_errors(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", nil)
	dir := t.TempDir()
	backup := filepath.Join(dir, "backup.db")
	if text, code := testserver.Run(t, server.Dir, "backup", "--to", backup); code != 0 {
		t.Fatalf("backup: exit %d\n%s", code, text)
	}
	complete := testutil.ReadFile(t, backup)
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("text.db", "not a database, however long it is")
	write("empty.db", "")
	write("truncated.db", complete[:len(complete)/2])
	write("stale.db-wal", "left behind")
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ args, wantMessage string }{
		{"backup --to backup.db --database " + filepath.Join(server.Dir, "agentmarket.db"), "backup.db already exists"},
		{"backup --to new.db --database none.db", "no such file"},
		{"backup --to new.db --database postgres://127.0.0.1/market", "pg_dump"},
		{"backup --to none/new.db --database backup.db", "no such file"},
		{"restore --from backup.db --database backup.db", "already exists"},
		{"restore --from backup.db --database stale.db", "stale.db-wal already exists"},
		{"restore --from backup.db --database " + filepath.Join(server.Dir, "agentmarket.db"), "another process is using it"},
		{"restore --from backup.db --database postgres://127.0.0.1/market", "agentmarket copy"},
		{"backup --to new.db --database pipe", "pipe is not a regular file"},
		{"backup --to :memory: --database backup.db", "is not a file path"},
		{"restore --from pipe --database new.db", "pipe is not a regular file"},
		{"restore --from text.db --database new.db", "not a database"},
		{"restore --from empty.db --database new.db", "no such table"},
		{"restore --from truncated.db --database new.db", "malformed"},
		{"restore --database new.db", "--from"},
	} {
		text, code := testserver.Run(t, dir, strings.Fields(row.args)...)
		if code == 0 || !strings.Contains(text, row.wantMessage) {
			t.Errorf("%s: exit %d, %s; want %q", row.args, code, text, row.wantMessage)
		}
		if _, err := os.Stat(filepath.Join(dir, "new.db")); err == nil {
			t.Fatalf("%s: left a file behind", row.args)
		}
	}
	if testutil.ReadFile(t, backup) != complete {
		t.Error("the backup was changed")
	}
	for _, pattern := range []string{".unfinished-*", "*.lock"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("these files remain: %v", left)
		}
	}
	if _, err := os.Stat(filepath.Join(server.Dir, "agentmarket.db.lock")); err != nil {
		t.Errorf("the server's lock: %v", err)
	}
	if text, code := testserver.Run(t, dir, "restore", "--from", "backup.db", "--database", "new.db"); code != 0 {
		t.Errorf("a valid restore: exit %d\n%s", code, text)
	}
}
