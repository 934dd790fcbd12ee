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

	"agentmarket.space/server/internal/test/e2e/program"
	"agentmarket.space/server/internal/test/trust/claim"
)

// TestOnDisk: what was answered is on the disk. The server's system calls are
// recorded while agents post, accept and complete: between the request of each
// change and its answer the log of the database was synced. Of reads it was not,
// so the record can tell.
func TestOnDisk(t *testing.T) {
	t.Parallel()
	claim.Only(t)
	strace := program.Tool(t, "strace")
	record := filepath.Join(t.TempDir(), "calls")
	// -D: the server keeps its process id; -y: with the names of files.
	server := program.StartAs(t, []string{strace, "-D", "-f", "--seccomp-bpf", "-y", "-s", "600", "-e", "trace=read,write,fdatasync,fsync", "-o", record, program.Path()},
		fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))
	changes := claim.Size(0, 1000, 20_000)
	var n atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		poster, worker := server.Register("Poster", nil), server.Register("Worker", nil)
		clients.Go(func() {
			w := &marking{T: t, server: server, n: &n, most: int64(changes)}
			for {
				task := w.do(poster.Key, posting())
				if task == "" || w.do(worker.Key, acceptance(task)) == "" || w.do(worker.Key, completion(task)) == "" {
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
	eventually(t, "the record is whole", func() bool { return strings.Contains(read(t, record), "+++ exited with 0 +++") })

	file, err := os.Open(record)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it was read
	synced, bare := syncedBetween(file, regexp.MustCompile(`change-\d+-`))
	if len(synced) != changes || len(bare) > 0 {
		t.Errorf("the log was synced for %d of %d changes, and not for %d: %v", len(synced), changes, len(bare), bare[:min(3, len(bare))])
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if synced, bare := syncedBetween(file, regexp.MustCompile(`read-\d+-`)); len(synced) > 0 || len(bare) != reads {
		t.Errorf("of %d reads %d are said to be synced: the record tells nothing", reads, len(synced))
	}
	claim.Shown(t, "disk", "%d of %d changes were synced between request and answer", len(synced), changes)
}

// marking sends changes, each with a name that is found in the record.
type marking struct {
	*testing.T
	server *program.Server
	n      *atomic.Int64
	most   int64
}

// do takes a step and returns its task; "" when there were enough.
func (m *marking) do(key string, s step) string {
	n := m.n.Add(1)
	if n > m.most {
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

// syncedBetween finds the requests with a name in a record of system calls: those
// with a sync of the database's log, begun and ended between the read that took
// them and the write that answered them, and those without.
func syncedBetween(record io.Reader, name *regexp.Regexp) (synced, bare []string) {
	type begun struct {
		call string
		line int
	}
	var (
		line, lastSync int                  // when the last sync began that has ended
		taken          = map[string]int{}   // by name, at which line
		answered       = map[string]bool{}  // by name
		waiting        = map[string]begun{} // by thread, what has not returned
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
				taken[found] = line
			}
		case verb == "write": // an answer is on its way as soon as its write begins
			for _, found := range name.FindAllString(now.call, -1) {
				if taken[found] == 0 || answered[found] {
					continue
				}
				answered[found] = true
				if lastSync > taken[found] {
					synced = append(synced, found)
				} else {
					bare = append(bare, found)
				}
			}
		}
	}
	return synced, bare
}
