package webhooks

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestMatch_mergedEvents: the job of several events makes the deliveries of all, in part
// or from the start as often as it may be begun; one that cannot be matched holds
// up the others for one try only.
func TestMatch_mergedEvents(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	worker, _ := b.addSubscriber(t, "https://hooks.example.com/", "research")
	poster := b.addAgent(t)
	var joined MatchArgs
	for i := range 3 {
		event := b.post(t, poster, "research")
		next := MatchArgs{EventID: event.ID, TaskID: *event.TaskID, Event: models.HookPosted}
		if i == 0 {
			joined = next
			continue
		}
		args, ok := joined.Merge(next)
		if joined, _ = args.(MatchArgs); !ok {
			t.Fatal("they cannot be joined")
		}
	}
	count := func(want int) {
		t.Helper()
		if made := b.deliveries(t, worker); len(made) != want {
			t.Errorf("%d deliveries are made, want %d", len(made), want)
		}
	}
	broken := joined
	broken.Merged = append([]MatchArgs{{EventID: joined.EventID, TaskID: "gone", Event: models.HookPosted}}, joined.Merged...)
	if err := b.runMatchJob(t, 1, broken); err == nil {
		t.Error("an event without its task is matched")
	}
	count(1)
	before := b.jobsInQueue(t, matchQueue)
	testutil.Must(t, b.runMatchJob(t, 2, broken))
	if parted := b.jobsInQueue(t, matchQueue) - before; parted != 4 {
		t.Errorf("the second try made %d jobs, want one for each event", parted)
	}
	count(1)
	for range 2 {
		testutil.Must(t, b.runMatchJob(t, 1, joined))
		count(3)
	}
	if jobs := b.jobsInQueue(t, firstAttemptQueue); jobs != 3 {
		t.Errorf("%d deliveries are to be sent", jobs)
	}
}

// TestMatch_mixed: one job can have posted tasks and other events. Each agent gets
// the deliveries that it would get from separate jobs.
func TestMatch_mixed(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	worker, _ := b.addSubscriber(t, "https://worker.example/", "research")
	poster, _ := b.addSubscriber(t, "https://poster.example/", "other")
	b.subscribeEvents(t, poster, models.HookExpired)
	expired, posted := b.post(t, poster), b.post(t, poster, "research")
	job := MatchArgs{EventID: expired.ID, TaskID: *expired.TaskID, Event: models.HookExpired, PosterID: poster, At: b.timestamp()}
	args, ok := job.Merge(MatchArgs{EventID: posted.ID, TaskID: *posted.TaskID, Event: models.HookPosted})
	if job, _ = args.(MatchArgs); !ok {
		t.Fatal("they cannot be joined")
	}
	for range 2 {
		testutil.Must(t, b.runMatchJob(t, 1, job))
		for agent, want := range map[string]models.Delivery{
			poster: {EventID: expired.ID, Event: models.HookExpired}, worker: {EventID: posted.ID, Event: models.HookPosted},
		} {
			made := b.deliveries(t, agent)
			if len(made) != 1 || made[0].EventID != want.EventID || made[0].Event != want.Event {
				t.Errorf("deliveries are %+v, want one of %s", made, want.Event)
			}
		}
	}
}

// TestSubscribedCapabilities: however many capabilities are asked for, those are found that an agent
// with a webhook has.
func TestSubscribedCapabilities(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	b.addSubscriber(t, "https://hooks.example.com/", "word 7", "word 777", "other")
	b.addAgent(t, "word 8")
	tasks := map[string]*models.Task{}
	for i := range 60 {
		task := &models.Task{}
		for j := range 20 {
			task.Capabilities = append(task.Capabilities, fmt.Sprintf("word %d", 20*i+j))
		}
		tasks[strconv.Itoa(i)] = task
	}
	heard, err := b.subscribedCapabilities(t.Context(), tasks)
	testutil.Must(t, err)
	if got := slices.Sorted(maps.Keys(heard)); !slices.Equal(got, []string{"word 7", "word 777"}) {
		t.Errorf("heard are %q", got)
	}
}

// TestMatchArgs_Merge: no job grows without end, and one that goes its own way is
// joined with none.
func TestMatchArgs_Merge(t *testing.T) {
	t.Parallel()
	job, joined := MatchArgs{EventID: 1}, 1
	for next := int64(2); ; next++ {
		args, ok := job.Merge(MatchArgs{EventID: next})
		if !ok {
			break
		}
		job, _ = args.(MatchArgs)
		joined++
	}
	if joined != maxMergedEvents {
		t.Errorf("%d events were joined", joined)
	}
	if _, ok := (MatchArgs{NoMerge: true}).Merge(MatchArgs{}); ok {
		t.Error("one that goes its own way took in another")
	}
	if _, ok := (MatchArgs{}).Merge(MatchArgs{NoMerge: true}); ok {
		t.Error("one that goes its own way was taken in")
	}
	if _, ok := (MatchArgs{}).Merge(DeliverArgs{}); ok {
		t.Error("a delivery was taken in")
	}
}
