package webhooks

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestNotify(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	poster := b.addAgent(t)

	b.post(t, poster, "research")
	testutil.Equal(t, "jobs without a webhook", b.jobsInQueue(t, matchQueue), 0)
	b.addSubscriber(t, "https://bot.example/", "research")
	b.post(t, poster, "research")
	testutil.Equal(t, "jobs for a posted task", b.jobsInQueue(t, matchQueue), 1)
	b.write(t, func(tx *database.Tx) error { return b.Notify(tx, &models.Event{Seq: 1, Kind: models.TaskReleased}) })
	testutil.Equal(t, "jobs for other kinds", b.jobsInQueue(t, matchQueue), 1)
}

func TestMatch(t *testing.T) {
	t.Parallel()

	t.Run("agents with a matching capability are notified, the poster is not", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		some, _ := b.addSubscriber(t, "https://some.example/", "research", "coding")
		none, _ := b.addSubscriber(t, "https://none.example/", "coding")
		poster, _ := b.addSubscriber(t, "https://poster.example/", "research")
		b.addAgent(t, "research")

		b.matchEvent(t, b.post(t, poster, "research", "summarization"))
		testutil.Equal(t, "overlap", len(b.deliveries(t, some)), 1)
		testutil.Equal(t, "no overlap", len(b.deliveries(t, none)), 0)
		testutil.Equal(t, "poster", len(b.deliveries(t, poster)), 0)
		testutil.Equal(t, "jobs", b.jobsInQueue(t, firstAttemptQueue), 1)
	})

	t.Run("a task without required capabilities matches no agent", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/", "research")
		b.matchEvent(t, b.post(t, b.addAgent(t)))
		testutil.Equal(t, "deliveries", len(b.deliveries(t, agent)), 0)
	})

	t.Run("many agents are matched page by page", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		const many = 2*matchPageSize + 1
		b.write(t, func(tx *database.Tx) error {
			for range many {
				id := uuid.Must(uuid.NewV7()).String()
				for _, row := range []any{
					&models.Agent{ID: id, Name: "bot", Capabilities: []string{"research"}, PricePerTask: 10},
					&models.AgentCapability{AgentID: id, Capability: "research"},
					&models.Webhook{AgentID: id, URL: "https://bot.example/", Status: models.WebhookActive, Events: []models.WebhookEvent{}},
				} {
					if err := tx.Create(row).Error; err != nil {
						return err
					}
				}
			}
			return nil
		})
		b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
		testutil.Equal(t, "jobs", b.jobsInQueue(t, firstAttemptQueue), many)
	})
}

// TestMatch_mergedEvents checks that a merged job creates the deliveries of all its
// events, that it is idempotent, and that an event that cannot be matched blocks
// the others for one attempt only.
func TestMatch_mergedEvents(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	worker, _ := b.addSubscriber(t, "https://hooks.example.com/", "research")
	poster := b.addAgent(t)
	var merged MatchArgs
	for i := range 3 {
		event := b.post(t, poster, "research")
		next := MatchArgs{EventID: event.ID, TaskID: *event.TaskID, Event: models.WebhookTaskPosted}
		if i == 0 {
			merged = next
			continue
		}
		args, ok := merged.Merge(next)
		if merged, _ = args.(MatchArgs); !ok {
			t.Fatal("the jobs cannot be merged")
		}
	}
	count := func(want int) {
		t.Helper()
		if n := len(b.deliveries(t, worker)); n != want {
			t.Errorf("%d deliveries, want %d", n, want)
		}
	}
	broken := merged
	broken.Merged = append([]MatchArgs{{EventID: merged.EventID, TaskID: "missing", Event: models.WebhookTaskPosted}}, merged.Merged...)
	if err := b.runMatchJob(t, 1, broken); err == nil {
		t.Error("an event without a task was matched")
	}
	count(1)
	before := b.jobsInQueue(t, matchQueue)
	testutil.Must(t, b.runMatchJob(t, 2, broken))
	if split := b.jobsInQueue(t, matchQueue) - before; split != 4 {
		t.Errorf("the second attempt enqueued %d jobs, want one per event", split)
	}
	count(1)
	for range 2 {
		testutil.Must(t, b.runMatchJob(t, 1, merged))
		count(3)
	}
	if jobs := b.jobsInQueue(t, firstAttemptQueue); jobs != 3 {
		t.Errorf("%d delivery jobs, want 3", jobs)
	}
}

// TestMatch_mergedEventKinds checks a merged job with a posted task and another event: each agent
// gets the same deliveries as from separate jobs.
func TestMatch_mergedEventKinds(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	worker, _ := b.addSubscriber(t, "https://worker.example/", "research")
	poster, _ := b.addSubscriber(t, "https://poster.example/", "other")
	b.subscribeEvents(t, poster, models.WebhookTaskExpired)
	expired, posted := b.post(t, poster), b.post(t, poster, "research")
	job := MatchArgs{EventID: expired.ID, TaskID: *expired.TaskID, Event: models.WebhookTaskExpired, PosterID: poster, At: b.timestamp()}
	args, ok := job.Merge(MatchArgs{EventID: posted.ID, TaskID: *posted.TaskID, Event: models.WebhookTaskPosted})
	if job, _ = args.(MatchArgs); !ok {
		t.Fatal("the jobs cannot be merged")
	}
	for range 2 {
		testutil.Must(t, b.runMatchJob(t, 1, job))
		for agent, want := range map[string]models.Delivery{
			poster: {EventID: expired.ID, Event: models.WebhookTaskExpired}, worker: {EventID: posted.ID, Event: models.WebhookTaskPosted},
		} {
			got := b.deliveries(t, agent)
			if len(got) != 1 || got[0].EventID != want.EventID || got[0].Event != want.Event {
				t.Errorf("deliveries are %+v, want one of %s", got, want.Event)
			}
		}
	}
}

// TestSubscribedCapabilities checks that the capabilities of agents with a webhook are
// found among more required capabilities than one statement can query.
func TestSubscribedCapabilities(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	b.addSubscriber(t, "https://hooks.example.com/", "skill 7", "skill 777", "other")
	b.addAgent(t, "skill 8")
	tasks := map[string]*models.Task{}
	for i := range 60 {
		task := &models.Task{}
		for j := range 20 {
			task.Capabilities = append(task.Capabilities, fmt.Sprintf("skill %d", 20*i+j))
		}
		tasks[strconv.Itoa(i)] = task
	}
	subscribed, err := b.subscribedCapabilities(t.Context(), tasks)
	testutil.Must(t, err)
	if got := slices.Sorted(maps.Keys(subscribed)); !slices.Equal(got, []string{"skill 7", "skill 777"}) {
		t.Errorf("subscribed capabilities are %q", got)
	}
}

// TestMatchArgs_Merge checks the limit of merged events and that NoMerge jobs stay
// separate.
func TestMatchArgs_Merge(t *testing.T) {
	t.Parallel()
	job, merged := MatchArgs{EventID: 1}, 1
	for next := int64(2); ; next++ {
		args, ok := job.Merge(MatchArgs{EventID: next})
		if !ok {
			break
		}
		job, _ = args.(MatchArgs)
		merged++
	}
	if merged != maxMergedEvents {
		t.Errorf("%d events were merged, want %d", merged, maxMergedEvents)
	}
	if _, ok := (MatchArgs{NoMerge: true}).Merge(MatchArgs{}); ok {
		t.Error("a NoMerge job merged another one")
	}
	if _, ok := (MatchArgs{}).Merge(MatchArgs{NoMerge: true}); ok {
		t.Error("a NoMerge job was merged")
	}
	if _, ok := (MatchArgs{}).Merge(DeliverArgs{}); ok {
		t.Error("a delivery job was merged")
	}
}
