package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestStop: asked to stop, the server finishes the hire that is under way, pays
// for it, tells its sockets that it goes away, and ends with 0. What it had not
// told yet it tells after the next start.
func TestStop(t *testing.T) {
	t.Parallel()
	hired, finish := make(chan struct{}), make(chan struct{})
	deliveries, hookURL, env := startReceiver(t, nil)
	endpoint, _ := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(hired)
		<-finish
		_, _ = w.Write([]byte("Done."))
	}))
	server := testserver.Start(t, env...)
	worker := server.Register("Worker", map[string]any{"capabilities": []string{"x"}, "webhookUrl": hookURL, "endpointUrl": endpoint})
	poster := server.Register("Poster", nil)
	socket := dialWebSocket(t, server)

	answered := make(chan string, 1)
	go func() {
		_, text := server.Do(http.MethodPost, "/api/execute", poster.Key, fmt.Sprintf(`{"agent_id":%q,"task_description":"Slowly.","budget":15}`, worker.ID))
		answered <- text
	}()
	<-hired
	task := mustPostTask(t, server, poster.Key, "x")
	server.Terminate()

	if _, _, err := socket.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the socket ended with %v, want 1001", err)
	}
	testutil.Eventually(t, "nobody is let in any more", func() bool {
		status, _ := server.Do(http.MethodGet, "/readyz", "", "")
		return status != http.StatusOK
	})
	close(finish)
	if text := <-answered; !strings.Contains(text, `"result":"Done."`) || !strings.Contains(text, `"balance":60`) {
		t.Errorf("the hire was answered with %s", text)
	}
	select {
	case <-server.Exited():
	case <-time.After(testutil.Timeout):
		t.Fatal("the server does not end")
	}
	if code := server.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, server.Log())
	}
	server.Verify()
	server.Restart()
	if one := nextDelivery(t, deliveries); !strings.Contains(one.body, task.ID) {
		t.Errorf("told of %s", one.body)
	}
	if status, text := server.Do(http.MethodGet, "/api/wallet", worker.Key, ""); status != http.StatusOK || !strings.HasSuffix(text, `"balance":113}`) {
		t.Errorf("the worker's wallet: %d %s, want 100 and 13 of 15", status, text)
	}
}

// TestStop_terminalClosed: when its terminal is closed a market for an afternoon leaves
// nothing, as when it is interrupted.
func TestStop_terminalClosed(t *testing.T) {
	t.Parallel()
	temporary := t.TempDir()
	cmd := exec.CommandContext(t.Context(), testserver.BinaryPath(), "dev", "--addr", "127.0.0.1:0", "--pace", "0s")
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Press Ctrl-C to stop") {
		continue
	}
	err = cmd.Process.Signal(syscall.SIGHUP)
	_, _ = io.Copy(io.Discard, out)
	err = errors.Join(err, cmd.Wait())
	if left, _ := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("ended with %v and left %v", err, left)
	}
}

// TestStart_errors: what cannot be is refused with one line that says why, and changes
// nothing.
func TestStart_errors(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", nil)
	address := strings.TrimPrefix(server.URL, "http://")
	rows := []struct {
		args []string
		code int
		says string
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
		testserver.ExpectExit(t, row.code, row.says, row.args...)
	}
	if status, text := server.Do(http.MethodGet, "/readyz", "", ""); status != http.StatusOK {
		t.Errorf("the server that was there first: %d %s", status, text)
	}
	server.Verify()
}

// TestStart_damagedDatabase: a file that is no sound database is refused, to serve and
// to verify, and stays as it is, to the byte.
func TestStart_damagedDatabase(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", nil)
	server.Stop()
	sound := readFile(t, filepath.Join(server.Dir, "agentmarket.db"))
	for name, row := range map[string]struct{ content, says string }{
		"no database at all":          {strings.Repeat("not a database. ", 1000), "not a database"},
		"the half of one":             {sound[:len(sound)/2], "malformed"},
		"one with noise in its pages": {sound[:8192] + strings.Repeat("\xff", 30_000) + sound[38_192:], "damaged"},
		"one with a spoilt schema":    {sound[:100] + strings.Repeat("\xff", 400) + sound[500:], "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "damaged.db")
			if err := os.WriteFile(file, []byte(row.content), 0o600); err != nil {
				t.Fatal(err)
			}
			testserver.ExpectExit(t, 1, row.says, "--addr=127.0.0.1:0", "--database="+file)
			testserver.ExpectExit(t, 1, "agentmarket: ", "verify", "--database="+file)
			if readFile(t, file) != row.content {
				t.Error("the file was written to")
			}
		})
	}
}
