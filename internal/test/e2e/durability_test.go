package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// TestSyncBeforeResponse: strace records the server's system calls while agents post,
// accept and complete tasks. The WAL is synced between the request and the response of each
// change. It is not synced for reads, which shows that the analysis works.
func TestSyncBeforeResponse(t *testing.T) {
	t.Parallel()
	trusttest.SkipUnlessTrust(t)
	strace := testserver.RequireTool(t, "strace")
	record := filepath.Join(t.TempDir(), "calls")
	// -D keeps the server's process ID; -y prints file names.
	server := testserver.StartCommand(t, []string{strace, "-D", "-f", "--seccomp-bpf", "-y", "-s", "600", "-e", "trace=read,write,fdatasync,fsync", "-o", record, testserver.BinaryPath()},
		fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))
	changes := trusttest.Scale(0, 1000, 20_000)
	var n atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		poster, worker := server.Register("Poster", nil), server.Register("Worker", nil)
		clients.Go(func() {
			w := &tracedClient{T: t, server: server, sent: &n, limit: int64(changes)}
			for {
				task := w.do(poster.Key, postCall())
				if task == "" || w.do(worker.Key, acceptCall(task)) == "" || w.do(worker.Key, completeCall(task)) == "" {
					return
				}
			}
		})
	}
	clients.Wait()
	const reads = 50
	for i := range reads {
		server.Do(http.MethodGet, "/api/wallet", "", "", "X-Request-Id", fmt.Sprintf("read-%d-", i))
	}
	server.Stop()
	testutil.Eventually(t, "the trace to be complete", func() bool { return strings.Contains(testutil.ReadFile(t, record), "+++ exited with 0 +++") })

	file, err := os.Open(record)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	synced, unsynced := parseSyncs(file, regexp.MustCompile(`change-\d+-`))
	if len(synced) != changes || len(unsynced) > 0 {
		t.Errorf("synced for %d of %d changes, not for %d: %v", len(synced), changes, len(unsynced), unsynced[:min(3, len(unsynced))])
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if synced, unsynced := parseSyncs(file, regexp.MustCompile(`read-\d+-`)); len(synced) > 0 || len(unsynced) != reads {
		t.Errorf("of %d reads %d are synced: the analysis is wrong", reads, len(synced))
	}
	trusttest.Report(t, "disk", "%d of %d changes were synced between request and response", len(synced), changes)
}

// tracedClient sends changes that each carry a unique name for the analysis.
type tracedClient struct {
	*testing.T
	server *testserver.Server
	sent   *atomic.Int64
	limit  int64
}

// do sends a call and returns its task, or "" when enough changes were sent.
func (m *tracedClient) do(key string, s apiCall) string {
	n := m.sent.Add(1)
	if n > m.limit {
		return ""
	}
	path, body := s.path, s.body
	if n%2 == 0 {
		path, body = "/graphql", fmt.Sprintf(`{"query":%q}`, "mutation { verb: "+s.mutation+" }")
	}
	status, text := m.server.Do(http.MethodPost, path, key, body, "X-Request-Id", fmt.Sprintf("change-%d-", n))
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(text)
	if status != http.StatusOK || id == nil {
		m.Errorf("%s: %d %s", path, status, text)
		return ""
	}
	return id[1]
}

// parseSyncs finds named requests in the output of strace. synced are those with a complete
// sync of the WAL between the read of the request and the write of the response; unsynced
// are the others.
func parseSyncs(record io.Reader, name *regexp.Regexp) (synced, unsynced []string) {
	type begun struct {
		call string
		line int
	}
	var (
		line, lastSync int                  // start of the last completed sync
		readAt         = map[string]int{}   // line of the request, by name
		answered       = map[string]bool{}  // by name
		waiting        = map[string]begun{} // unfinished calls by thread
	)
	lines := bufio.NewScanner(record)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line++
		thread, call, _ := strings.Cut(lines.Text(), " ")
		now := begun{strings.TrimSpace(call), line}
		ended := true
		if text, unfinished := strings.CutSuffix(now.call, "<unfinished ...>"); unfinished {
			now.call, ended = text, false
			waiting[thread] = now
		} else if _, rest, resumed := strings.Cut(now.call, " resumed>"); resumed && strings.HasPrefix(now.call, "<... ") {
			now = waiting[thread]
			now.call += rest
		}
		verb, _, _ := strings.Cut(now.call, "(")
		switch {
		case (verb == "fsync" || verb == "fdatasync") && ended && strings.Contains(now.call, ".db-wal>") && strings.HasSuffix(now.call, "= 0"):
			lastSync = max(lastSync, now.line)
		case verb == "read" && ended:
			for _, found := range name.FindAllString(now.call, -1) {
				readAt[found] = line
			}
		case verb == "write": // the response may be sent as soon as its write starts
			for _, found := range name.FindAllString(now.call, -1) {
				if readAt[found] == 0 || answered[found] {
					continue
				}
				answered[found] = true
				if lastSync > readAt[found] {
					synced = append(synced, found)
				} else {
					unsynced = append(unsynced, found)
				}
			}
		}
	}
	return synced, unsynced
}
