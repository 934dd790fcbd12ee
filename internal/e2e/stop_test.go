package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/e2e/program"
)

// TestStop: asked to stop, the server finishes the hire that is under way, pays
// for it, tells its sockets that it goes away, and ends with 0. What it had not
// told yet it tells after the next start.
func TestStop(t *testing.T) {
	t.Parallel()
	hired, finish := make(chan struct{}), make(chan struct{})
	deliveries, hookURL, env := receiver(t, nil)
	endpoint, _ := program.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(hired)
		<-finish
		_, _ = w.Write([]byte("Done."))
	}))
	// Both receivers have the same certificate: httptest has only one.
	server := program.Start(t, env...)
	worker := server.Register("Worker", map[string]any{"capabilities": []string{"x"}, "webhookUrl": hookURL, "endpointUrl": endpoint})
	poster := server.Register("Poster", nil)
	socket := dial(t, server)

	answered := make(chan string, 1)
	go func() {
		_, text := server.Do(http.MethodPost, "/api/execute", poster.Key, fmt.Sprintf(`{"agent_id":%q,"task_description":"Slowly.","budget":15}`, worker.ID))
		answered <- text
	}()
	<-hired
	task := post(t, server, poster.Key, "x")
	server.Signal()

	if _, _, err := socket.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the socket ended with %v, want 1001", err)
	}
	eventually(t, "nobody is let in any more", func() bool {
		status, _ := server.Do(http.MethodGet, "/readyz", "", "")
		return status != http.StatusOK
	})
	close(finish)
	if text := <-answered; !strings.Contains(text, `"result":"Done."`) || !strings.Contains(text, `"balance":60`) {
		t.Errorf("the hire was answered with %s", text)
	}
	select {
	case <-server.Ended():
	case <-time.After(patience):
		t.Fatal("the server does not end")
	}
	if code := server.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, server.Log())
	}
	server.Verify()
	server.Restart()
	if one := next(t, deliveries); !strings.Contains(one.body, task.ID) {
		t.Errorf("told of %s", one.body)
	}
}

func dial(t *testing.T, server *program.Server) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
	conn, response, err := dialer.DialContext(t.Context(), strings.Replace(server.URL, "http", "ws", 1)+"/graphql", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = response.Body.Close()
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"connection_init"}`)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.ReadMessage(); err != nil || !strings.Contains(string(text), "connection_ack") {
		t.Fatalf("%s, %v", text, err)
	}
	return conn
}

// TestStart: what cannot be is refused with one line that says why, and changes
// nothing.
func TestStart(t *testing.T) {
	t.Parallel()
	server := program.Start(t)
	server.Register("Agent", nil)
	address := strings.TrimPrefix(server.URL, "http://")
	damaged := filepath.Join(t.TempDir(), "damaged.db")
	if err := os.WriteFile(damaged, []byte(strings.Repeat("not a database. ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--addr=127.0.0.1:0", "--database=" + filepath.Join(server.Dir, "agentmarket.db")}, 1, "another process"},
		{[]string{"--addr=" + address}, 1, "address already in use"},
		{[]string{"--addr=127.0.0.1:0", "--database=" + damaged}, 1, "not a database"},
		{[]string{"--addr=127.0.0.1:0", "--database=" + filepath.Join(t.TempDir(), "none", "a.db")}, 1, "no such file or directory"},
		{[]string{"--addr=127.0.0.1:0", "--database=postgres://localhost/market"}, 1, "SQLite"},
		{[]string{"--colour"}, 2, "unknown flag --colour"},
		{[]string{"--lease=1s"}, 2, "lease: must be at least 1m"},
		{[]string{"dance"}, 2, "unexpected argument dance"},
		{[]string{"verify", "--database=" + filepath.Join(t.TempDir(), "none.db")}, 1, "no such file or directory"},
	}
	for _, row := range rows {
		refused(t, row.says, row.code, row.args...)
	}
	if text := read(t, damaged); text != strings.Repeat("not a database. ", 1000) {
		t.Error("the damaged file was written to")
	}
	server.Verify()
}

// refused wants the program to end with a code, and to say why in one line.
func refused(t *testing.T, says string, code int, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program.Path(), args...)
	cmd.Dir = t.TempDir()
	text, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != code || !strings.Contains(string(text), says) || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%q ended with %v, want exit code %d and a line with %q:\n%s", args, err, code, says, text)
	}
}
