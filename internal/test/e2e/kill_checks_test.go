package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

// lastMoves returns the last acknowledged transition of each task.
func (k *killTest) lastMoves() map[string]move {
	last := map[string]move{}
	for _, m := range k.moves {
		last[m.task] = m
	}
	return last
}

// checkEvents checks that a live subscriber, and one that replays all events, received
// every task once, and those of each poster in the order of posting.
func (k *killTest) checkEvents(live *eventSubscriber) {
	last := k.post(k.posters[0]).task
	received := live.waitForTask(k.T, last)
	replay := &eventSubscriber{server: k.server, cursor: "0"}
	defer k.startSubscriber(replay)()
	if replayed := replay.waitForTask(k.T, last); !slices.Equal(replayed, received) {
		k.Errorf("%d events were heard live, %d afterwards, or others", len(received), len(replayed))
	}
	tasks, want, got := k.lastMoves(), map[string][]string{}, map[string][]string{}
	for _, m := range k.moves {
		if m.status == "OPEN" {
			want[m.poster.ID] = append(want[m.poster.ID], m.task)
		}
	}
	for _, id := range received {
		poster := tasks[id].poster.ID
		got[poster] = append(got[poster], id)
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		k.Errorf("heard of %d tasks, want each of %d once and in order", len(received), len(tasks))
	}
}

// checkAgents checks that the acknowledged agents exist, and no others.
func (k *killTest) checkAgents() {
	var data struct{ Agents struct{ TotalCount int } }
	if err := k.server.Query("", "{ agents { totalCount } }", nil, &data); err != nil {
		k.Fatal(err)
	}
	if want := len(slices.Concat(k.posters, k.workers, k.newcomers)); data.Agents.TotalCount != want {
		k.Errorf("there are %d agents, want %d", data.Agents.TotalCount, want)
	}
}

// checkAudit checks that the audit log has each acknowledged registration once, and no
// others.
func (k *killTest) checkAudit() {
	want, got := map[string]int{}, map[string]int{}
	for _, agent := range slices.Concat(k.posters, k.workers, k.newcomers) {
		want[agent.ID] = 1
	}
	const page = 1000
	for before := int64(math.MaxInt64); before > 0; {
		_, text := k.server.Do(http.MethodGet, fmt.Sprintf("/operator/audit?limit=%d&before=%d", page, before), operatorKey, "")
		var answer struct {
			Data []struct {
				Seq            int64
				Action, Object string
			}
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			k.Fatalf("%v in %s", err, text)
		}
		for _, entry := range answer.Data {
			if entry.Action == "agent.registered" {
				got[entry.Object]++
			}
		}
		if before = 0; len(answer.Data) == page {
			before = answer.Data[page-1].Seq
		}
	}
	if !maps.Equal(got, want) {
		k.Errorf("the audit log has %d registrations, %d were acknowledged, or others", len(got), len(want))
	}
}

// checkTasks checks that the acknowledged tasks exist in their last acknowledged state, and
// no others.
func (k *killTest) checkTasks() {
	want := map[string]string{}
	for id, m := range k.lastMoves() {
		want[id] = m.status
	}
	got, after := map[string]string{}, ""
	for {
		var data struct {
			Tasks struct {
				Nodes    []struct{ ID, Status string }
				PageInfo struct {
					HasNextPage bool
					EndCursor   string
				}
			}
		}
		variables := map[string]any{}
		if after != "" {
			variables["after"] = after
		}
		err := k.server.Query("", `query($after: String) { tasks(first: 100, after: $after, filter: {status: [OPEN, ASSIGNED, COMPLETED, CANCELLED, EXPIRED, FAILED]}) {
			nodes { id status } pageInfo { hasNextPage endCursor }
		} }`, variables, &data)
		if err != nil {
			k.Fatal(err)
		}
		for _, task := range data.Tasks.Nodes {
			got[task.ID] = task.Status
		}
		if after = data.Tasks.PageInfo.EndCursor; !data.Tasks.PageInfo.HasNextPage {
			break
		}
	}
	if !maps.Equal(got, want) {
		k.Errorf("there are %d tasks, %d were acknowledged, or they stand elsewhere", len(got), len(want))
	}
}

// checkBalances checks that every balance is the sum of the acknowledged work.
func (k *killTest) checkBalances() {
	want := map[string]int{}
	for _, agent := range slices.Concat(k.posters, k.workers, k.newcomers) {
		want[agent.Key] = startCredits
	}
	for _, m := range k.lastMoves() {
		want[m.poster.Key] -= budget
		if m.status == "COMPLETED" {
			want[m.worker.Key] += wage
		}
	}
	for _, h := range k.hires {
		if h.paid {
			want[h.poster.Key] -= budget
			want[h.worker.Key] += wage
		}
	}
	for key, credits := range want {
		var data struct {
			Viewer struct{ Wallet struct{ Balance int } }
		}
		if err := k.server.Query(key, "{ viewer { wallet { balance } } }", nil, &data); err != nil {
			k.Fatal(err)
		}
		if got := data.Viewer.Wallet.Balance; got != credits {
			k.Errorf("an agent has %d credits, want %d", got, credits)
		}
	}
}

// webhookRecorder receives webhooks and counts them by task and by delivery. It also serves
// as the endpoint of hired agents.
type webhookRecorder struct {
	mu             sync.Mutex
	taskCounts     map[string]int
	deliveryCounts map[string]int // by delivery ID
}

func (h *webhookRecorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call struct{ Task struct{ ID string } }
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/execute" {
		_, _ = w.Write([]byte("Done."))
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deliveryCounts[r.Header.Get("X-AgentMarket-Delivery")]++; h.deliveryCounts[r.Header.Get("X-AgentMarket-Delivery")] == 1 {
		h.taskCounts[call.Task.ID]++
	}
}

// waitForTasks waits until each task was delivered to a number of agents.
func (h *webhookRecorder) waitForTasks(t *testing.T, tasks []string, agents int) {
	t.Helper()
	testutil.Eventually(t, "every webhook to arrive", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return !slices.ContainsFunc(tasks, func(id string) bool { return h.taskCounts[id] < agents })
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range h.taskCounts {
		if n != agents {
			t.Errorf("task %s was delivered to %d agents", id, n)
		}
	}
}

// duplicates counts the deliveries that arrived more than once.
func (h *webhookRecorder) duplicates() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, times := range h.deliveryCounts {
		n += times - 1
	}
	return n
}
