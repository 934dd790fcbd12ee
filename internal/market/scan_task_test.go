package market_test

import (
	"reflect"
	"testing"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestTasks_readsAllColumns: Task, Tasks and ListTasks return the same columns as gorm, which
// matches them by name.
func TestTasks_readsAllColumns(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.NewAgent(), b.NewAgent()
	rated, comment := b.NewTask(poster, 10, "x", "y"), "well done"
	_, err := b.Accept(t.Context(), worker, rated.ID)
	testutil.Must(t, err)
	_, err = b.Complete(t.Context(), worker, rated.ID, "the result")
	testutil.Must(t, err)
	_, err = b.Rate(t.Context(), poster, market.RateTaskInput{TaskID: rated.ID, Score: 4, Comment: &comment})
	testutil.Must(t, err)
	accepted, cancelled := b.NewTask(poster, 20), b.NewTask(poster, 30)
	_, err = b.Accept(t.Context(), worker, accepted.ID)
	testutil.Must(t, err)
	_, err = b.Cancel(t.Context(), poster, cancelled.ID)
	testutil.Must(t, err)
	b.Settings.Spending.MaxTokens = 9
	_, err = b.UpdateAgent(t.Context(), worker, market.AgentChanges{EndpointURL: new(""), SystemPrompt: new("You are terse.")})
	testutil.Must(t, err)
	hired, err := b.Execute(t.Context(), poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 10})
	testutil.Must(t, err)

	set := map[string]bool{}
	for _, id := range []string{rated.ID, accepted.ID, cancelled.ID, hired.Task.ID} {
		var want models.Task
		testutil.Must(t, b.DB.Read(t.Context()).Take(&want, "id = ?", id).Error)
		one, err := b.Task(t.Context(), poster.AgentID, id)
		testutil.Must(t, err)
		batch, err := b.Tasks(t.Context(), []string{id})
		testutil.Must(t, err)
		listed, err := b.ListTasks(t.Context(), market.TaskQuery{PosterID: poster.AgentID, Status: []models.Status{want.Status}}, market.Page{First: 10})
		testutil.Must(t, err)
		for _, got := range append(append([]models.Task{*one}, batch...), listed.Items...) {
			if got.ID == id && !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		}
		for field, value := range reflect.ValueOf(want).Fields() {
			set[field.Name] = set[field.Name] || !value.IsZero()
		}
	}
	for name, ok := range set {
		// Set only in lapsed tasks, running hires and hires on the model.
		if !ok && name != "Lapses" && name != "Replica" && name != "Tokens" {
			t.Errorf("no task of this test has a %s", name)
		}
	}
}
