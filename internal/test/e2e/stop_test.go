package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// devReady is the start of the line that agentmarket dev prints when it is ready.
const devReady = "Press Ctrl-C to stop"

// TestStop: on SIGTERM the server finishes and pays the running hire, closes WebSockets with
// 1001 and exits with 0. It delivers pending webhooks after the next start.
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

	response := make(chan string, 1)
	go func() {
		_, text := server.Do(http.MethodPost, "/api/execute", poster.Key, fmt.Sprintf(`{"agent_id":%q,"task_description":"Slowly.","budget":15}`, worker.ID))
		response <- text
	}()
	testutil.Receive(t, "the hire to reach its endpoint", hired)
	task := server.PostTask(poster.Key, "x")
	server.Terminate()

	if _, _, err := socket.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the WebSocket closed with %v, want 1001", err)
	}
	testutil.Eventually(t, "the server not to be ready", func() bool {
		status, _ := server.Do(http.MethodGet, "/readyz", "", "")
		return status != http.StatusOK
	})
	close(finish)
	if text := testutil.Receive(t, "the response to the hire", response); !strings.Contains(text, `"result":"Done."`) || !strings.Contains(text, `"balance":60`) {
		t.Errorf("the response to the hire is %s", text)
	}
	testutil.Receive(t, "the server to exit", server.Exited())
	if code := server.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, server.Log())
	}
	server.Verify()
	server.Restart()
	if d := nextDelivery(t, deliveries); !strings.Contains(d.body, task.ID) {
		t.Errorf("the webhook is %s", d.body)
	}
	if status, text := server.Do(http.MethodGet, "/api/wallet", worker.Key, ""); status != http.StatusOK || !strings.HasSuffix(text, `"balance":113}`) {
		t.Errorf("the worker's wallet: %d %s, want 100 and 13 of 15", status, text)
	}
}

// TestStop_hangup: when its terminal is closed, agentmarket dev removes its files and ends,
// as it does when it is interrupted.
func TestStop_hangup(t *testing.T) {
	t.Parallel()
	// Under nohup this process ignores SIGHUP, and so would the child. A signal that is
	// caught has its default action in the child.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Timeout)
	defer cancel()
	tempDir := t.TempDir()
	cmd := exec.CommandContext(ctx, testserver.BinaryPath(), "dev", "--addr", "127.0.0.1:0", "--pace", "0s")
	cmd.Env = append(os.Environ(), "TMPDIR="+tempDir)
	out, err := cmd.StdoutPipe()
	testutil.Must(t, err)
	testutil.Must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), devReady) {
		continue
	}
	err = cmd.Process.Signal(syscall.SIGHUP)
	_, _ = io.Copy(io.Discard, out)
	err = errors.Join(err, cmd.Wait())
	if left, _ := os.ReadDir(tempDir); err != nil || len(left) > 0 {
		t.Errorf("ended with %v and left %v", err, left)
	}
}
