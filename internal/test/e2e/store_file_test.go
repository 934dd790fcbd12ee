package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestStoreFile_oneServer: a second program is refused on the file of a running server,
// by whatever path it opens the file, and also without the lock file. It leaves no file
// behind.
func TestStoreFile_oneServer(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", map[string]any{"endpointUrl": "https://agent.example.com/run"})
	backup := filepath.Join(t.TempDir(), "backup.db")
	if text, code := testserver.Run(t, server.Dir, "backup", "--to", backup); code != 0 {
		t.Fatal(text)
	}
	dir := t.TempDir()
	file := filepath.Join(server.Dir, "agentmarket.db")
	testutil.Must(t, os.Symlink(file, filepath.Join(dir, "link.db")))
	testutil.Must(t, os.Symlink("link.db", filepath.Join(dir, "chain.db")))
	testutil.Must(t, os.Symlink(server.Dir, filepath.Join(dir, "folder")))
	relative, err := filepath.Rel(dir, file)
	testutil.Must(t, err)
	spellings := []string{file, relative, "link.db", "chain.db", filepath.Join("folder", "agentmarket.db"), server.Dir + "/../" + filepath.Base(server.Dir) + "//agentmarket.db"}
	refused := func(path string) {
		t.Helper()
		for _, args := range []string{"serve --addr=127.0.0.1:0", "rekey", "restore --from " + backup} {
			args := append(strings.Fields(args), "--database="+path)
			if text, code := testserver.Run(t, dir, args...); code != 1 || !strings.Contains(text, "another process is using it") {
				t.Errorf("%q: exit %d, %s", args, code, text)
			}
		}
	}
	for _, path := range spellings {
		refused(path)
	}
	if runtime.GOOS == "linux" {
		testutil.Must(t, os.Remove(file+".lock"))
		for _, args := range [][]string{{"serve", "--addr=127.0.0.1:0"}, {"rekey"}} {
			if text, code := testserver.Run(t, dir, append(args, "--database=link.db")...); code != 1 || !strings.Contains(text, "another process is using it") {
				t.Errorf("%q without a lock file: exit %d, %s", args, code, text)
			}
		}
	}
	testutil.Must(t, os.Link(file, filepath.Join(dir, "hard.db")))
	for _, args := range [][]string{{"serve", "--addr=127.0.0.1:0"}, {"rekey"}} {
		text, code := testserver.Run(t, dir, append(args, "--database=hard.db")...)
		if code != 1 || !strings.Contains(text, "another process is using it") && !strings.Contains(text, "hard links") {
			t.Errorf("%q on a hard link: exit %d, %s", args, code, text)
		}
	}
	if keys, _ := filepath.Glob(filepath.Join(dir, "*.key")); len(keys) > 0 {
		t.Errorf("a refused program left %v", keys)
	}
	server.Verify()
	server.Kill()
	for _, path := range []string{file, filepath.Join(dir, "hard.db")} { // the log has the name of only one of them
		testserver.ExpectExit(t, 1, "hard links", "--addr=127.0.0.1:0", "--database="+path)
	}
	testutil.Must(t, os.Remove(filepath.Join(dir, "hard.db")))
	server.Restart("AGENTMARKET_DATABASE=" + filepath.Join(dir, "chain.db")) // also finds the key and the log
	if _, err := os.Stat(filepath.Join(dir, "chain.db-wal")); err == nil {
		t.Error("the log is next to the link")
	}
	server.Verify()
}

// TestStoreFile_foreignLog: a start is refused if the database file does not fit the log
// that a killed server left. Nothing is changed, and with the right file every
// acknowledged task is there.
func TestStoreFile_foreignLog(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	agent := server.Register("Agent", map[string]any{"endpointUrl": "https://agent.example.com/run"})
	older := filepath.Join(t.TempDir(), "older.db")
	server.PostTask(agent.Key, "x")
	server.Stop()
	file := filepath.Join(server.Dir, "agentmarket.db")
	content := map[string]string{"an older copy": testutil.ReadFile(t, file), "no file": "", "an empty file": ""}
	server.Restart()
	if text, code := testserver.Run(t, server.Dir, "backup", "--to", older); code != 0 {
		t.Fatal(text)
	}
	content["a backup"] = testutil.ReadFile(t, older)
	task := server.PostTask(agent.Key, "x")
	server.Kill()
	right, log := testutil.ReadFile(t, file), testutil.ReadFile(t, file+"-wal")
	other := testserver.Start(t)
	other.Register("Agent", nil)
	other.Kill()
	content["another market"] = testutil.ReadFile(t, filepath.Join(other.Dir, "agentmarket.db"))
	for name, text := range content {
		testutil.Must(t, os.Remove(file))
		if name != "no file" {
			testutil.Must(t, os.WriteFile(file, []byte(text), 0o600))
		}
		out, code := testserver.Run(t, server.Dir, "serve", "--addr=127.0.0.1:0")
		if code != 1 || !strings.Contains(out, "agentmarket.db-wal") || !strings.Contains(out, "put the ") {
			t.Errorf("%s: exit %d, %s", name, code, out)
		}
		if testutil.ReadFile(t, file+"-wal") != log {
			t.Fatalf("%s: the log was changed", name)
		}
		if name == "no file" {
			_, err := os.Stat(file)
			if err == nil {
				t.Errorf("%s: a file was created", name)
			}
			testutil.Must(t, os.WriteFile(file, nil, 0o600))
		} else if testutil.ReadFile(t, file) != text {
			t.Errorf("%s: the file was changed", name)
		}
	}
	testutil.Must(t, os.WriteFile(file, []byte(right), 0o600))
	server.Restart()
	if status, text := server.Do(http.MethodGet, "/api/tasks/"+task.ID, agent.Key, ""); status != http.StatusOK {
		t.Errorf("with the right file: %d %s", status, text)
	}
	server.Verify()
}

// TestStoreFile_lostWhileRunning: when a file of the store is removed or replaced, writes
// fail with UNAVAILABLE and /readyz says why, until the right file is back and the server
// is restarted. The log has one error.
func TestStoreFile_lostWhileRunning(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		lose              func(file string) error
		idle, overwritten bool // idle: no write notices the loss
	}{
		"removed":            {func(file string) error { return os.Rename(file, file+".away") }, false, false},
		"removed while idle": {func(file string) error { return os.Rename(file, file+".away") }, true, false},
		"log removed":        {func(file string) error { return os.Rename(file+"-wal", file+"-wal.away") }, false, false},
		"shared memory":      {func(file string) error { return os.Rename(file+"-shm", file+"-shm.away") }, false, false},
		"replaced by a copy": {replaceByCopy, false, false},
		"overwritten in place": {func(file string) error {
			return os.WriteFile(file, []byte("something else"), 0o600)
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testserver.Start(t)
			agent := server.Register("Agent", map[string]any{"endpointUrl": "https://agent.example.com/run"})
			server.PostTask(agent.Key, "x")
			file := filepath.Join(server.Dir, "agentmarket.db")
			saved := testutil.ReadFile(t, file)
			savedLog := testutil.ReadFile(t, file+"-wal")
			testutil.Must(t, row.lose(file))
			if row.idle {
				testutil.Eventually(t, "the log line", func() bool { return strings.Contains(server.Log(), "removed or replaced") })
			}
			const body = `{"title":"t","description":"d","budget":2}`
			if status, text := server.Do(http.MethodPost, "/api/tasks", agent.Key, body); status != http.StatusServiceUnavailable || !strings.Contains(text, "UNAVAILABLE") {
				t.Errorf("a write: %d %s", status, text)
			}
			if err := server.Query(agent.Key, `mutation { postTask(input: {title: "t", description: "d", budget: 2}) { task { id } } }`, nil, nil); err == nil || !strings.Contains(err.Error(), "UNAVAILABLE") {
				t.Errorf("a mutation: %v", err)
			}
			wantLost := func() {
				t.Helper()
				if status, text := server.Do(http.MethodGet, "/readyz", "", ""); status != http.StatusServiceUnavailable || !strings.Contains(text, "removed or replaced") {
					t.Errorf("/readyz: %d %s", status, text)
				}
			}
			wantLost()
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if _, err := os.Stat(file + suffix + ".away"); err == nil {
					testutil.Must(t, os.Rename(file+suffix+".away", file+suffix))
				}
			}
			wantLost() // SQLite may have missed changes
			if code := server.Stop(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			counted := `"level":"ERROR"`
			if row.overwritten { // SQLite can notice it first
				counted += `,"msg":"the database file was removed or replaced`
			}
			if n := strings.Count(server.Log(), counted); n != 1 {
				t.Errorf("%d errors in the log:\n%s", n, server.Log())
			}
			if !strings.HasPrefix(name, "removed") {
				testutil.Must(t, os.WriteFile(file, []byte(saved), 0o600))
				testutil.Must(t, os.WriteFile(file+"-wal", []byte(savedLog), 0o600))
			}
			server.Restart()
			server.PostTask(agent.Key, "x")
			server.Verify()
		})
	}
}

// replaceByCopy replaces a file by a copy, as some editors and backup tools do.
func replaceByCopy(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".copy", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".copy", file)
}

// TestStoreFile_modes: every file that the program makes belongs to its owner only,
// whatever the umask. A start also restricts files that an older version made.
func TestStoreFile_modes(t *testing.T) {
	t.Parallel()
	for _, umask := range []string{"022", "000"} {
		t.Run(umask, func(t *testing.T) {
			t.Parallel()
			command := []string{"sh", "-c", `umask ` + umask + `; exec "$0" "$@"`, testserver.BinaryPath()}
			server := testserver.StartCommand(t, command)
			server.Register("Agent", map[string]any{"endpointUrl": "https://agent.example.com/run"})
			wantPrivate(t, server.Dir, 5) // the database, its log, its shared memory, its key and its lock
			server.Kill()
			for _, suffix := range []string{"", "-wal", "-shm", ".key", ".lock"} {
				testutil.Must(t, os.Chmod(filepath.Join(server.Dir, "agentmarket.db"+suffix), 0o644))
			}
			server.Restart()
			wantPrivate(t, server.Dir, 5)
			server.Stop()
			shell := func(args string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("umask %s; exec %s %s", umask, testserver.BinaryPath(), args))
				cmd.Dir = server.Dir
				if text, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", args, err, text)
				}
			}
			shell("rekey")
			shell("backup --to backup.db")
			shell("restore --from backup.db --database restored.db")
			wantPrivate(t, server.Dir, 7)
		})
	}
}

// wantPrivate checks that a folder has at least a number of files, all with mode 0600.
func wantPrivate(t *testing.T, dir string, atLeast int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	testutil.Must(t, err)
	if len(entries) < atLeast {
		t.Errorf("%d files, want at least %d: %v", len(entries), atLeast, entries)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		testutil.Must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", entry.Name(), info.Mode())
		}
	}
}
